"""What users of Client see, against fake nodes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import kvclient
from kvclient import _thread
from kvproto import kv_pb2 as pb
from kvproto.token import partition_of, token
from tests.unit.client.fakes import (
    HOUR_MS,
    Break,
    FakeCluster,
    Hold,
    Newer,
    Refuse,
    Row,
    Siblings,
    context_of,
)

ROOT = Path(__file__).parents[3]


@pytest.fixture
def db(cluster: FakeCluster) -> Iterator[kvclient.Client]:
    with kvclient.Client(cluster.seeds) as client:
        yield client


def test_a_put_can_be_read_back_and_deleted(db: kvclient.Client) -> None:
    written = db.put("user:1", b"ada")
    assert written.acked_by[1] == "n2"
    assert db.get("user:1") == b"ada"
    assert db.get(b"user:1") == b"ada"
    db.delete("user:1")
    assert db.get("user:1") is None


def test_a_client_reads_like_a_mapping(db: kvclient.Client) -> None:
    db["k"] = b""
    assert db["k"] == b""
    assert "k" in db
    assert 7 not in db
    del db["k"]
    assert "k" not in db
    with pytest.raises(KeyError):
        db["k"]


def test_a_record_carries_the_context_that_replaces_it(
    db: kvclient.Client, cluster: FakeCluster
) -> None:
    db["k"] = b"v"
    record = db.get_record("k")
    assert record is not None
    db.put("k", b"w", context=record.context)
    assert cluster.received[-1].context == record.context
    assert cluster.received[-1].flags == pb.PUT_EXPLICIT
    assert db.get_record("absent") is None


def test_an_explained_read_says_which_rule_decided_even_for_an_absent_key(
    db: kvclient.Client,
) -> None:
    record = db.get_record("absent", explain=True)
    assert record is not None
    assert record.value is None
    assert record.explain is not None
    assert record.explain.rule == "agreed"


def test_batches_return_results_in_order(db: kvclient.Client) -> None:
    pairs = [(f"k{number}", b"%d" % number) for number in range(3000)]
    assert len(db.put_many(pairs)) == 3000
    keys = [key for key, _ in pairs]
    assert db.get_many([*keys, "absent"]) == [*(value for _, value in pairs), None]
    assert db.put_many({}) == []
    assert db.metrics.frames_sent < 600


def test_a_batch_that_fails_in_part_says_what_became_of_each_key(
    db: kvclient.Client, cluster: FakeCluster
) -> None:
    cluster.script(lambda row: Refuse(pb.PERMISSION_DENIED) if row.key == b"b" else None)
    with pytest.raises(kvclient.PartialFailure) as caught:
        db.put_many({"a": b"1", "b": b"2"})
    results = caught.value.results
    assert isinstance(results["a"], kvclient.WriteResult)
    assert isinstance(results["b"], kvclient.PermissionDenied)
    assert list(caught.value.errors) == ["b"]
    assert caught.value.outcome == "not applied"


def test_another_keyspace_shares_connection_and_session(
    db: kvclient.Client, cluster: FakeCluster
) -> None:
    carts = db.keyspace("carts")
    carts["k"] = b"cart"
    assert db.get("k") is None
    assert carts["k"] == b"cart"
    assert {row.keyspace for row in cluster.received} == {"default", "carts"}


def connect_all(db: kvclient.Client, cluster: FakeCluster) -> None:
    """Make calls until every node has had one; nodes are dialled as their keys are used."""
    keys = [f"warm{number}" for number in range(64)]
    while not all(node.received for node in cluster.nodes):
        db.get_many(keys)


def test_operations_go_straight_to_the_first_owner(
    db: kvclient.Client, cluster: FakeCluster
) -> None:
    connect_all(db, cluster)
    cluster.received.clear()
    for number in range(64):
        db.put(f"k{number}", b"")
    for row in cluster.received:
        partition = partition_of(token("default", row.key), 4)
        assert row.node == f"n{db.topology.walks[partition][0]}"


def test_what_is_asked_at_one_instant_goes_to_one_owner(
    db: kvclient.Client, cluster: FakeCluster
) -> None:
    connect_all(db, cluster)
    cluster.received.clear()
    db.put_many([(f"k{number}", b"") for number in range(64)])
    assert len({row.node for row in cluster.received}) == 1


def test_r_w_and_ttl_travel(db: kvclient.Client, cluster: FakeCluster) -> None:
    db.put("k", b"v", w=3, ttl=1.5)
    put = cluster.received[-1]
    assert put.quorum == 3
    assert put.expires_ms == (put.timestamp >> 16) + 1500
    db.get("k", r=1, timeout=0.5)
    assert cluster.received[-1].quorum == 1
    assert 300 < cluster.received[-1].timeout_ms < 500
    db.keyspace("brief").put("k", b"v")
    put = cluster.received[-1]
    assert put.expires_ms == (put.timestamp >> 16) + HOUR_MS


def test_a_stream_that_breaks_in_a_put_costs_a_retry_under_the_same_write_id(
    db: kvclient.Client, cluster: FakeCluster
) -> None:
    broken = threading.Event()

    def break_once(row: Row) -> object:
        if row.key == b"k" and not broken.is_set():
            broken.set()
            return Break()
        return None

    cluster.script(break_once)
    db.put("k", b"v")
    first, second = (row for row in cluster.received if row.key == b"k")
    assert first.node != second.node
    assert (first.write_id, first.timestamp) == (second.write_id, second.timestamp)
    assert db["k"] == b"v"


def test_a_dead_node_fails_no_operation(db: kvclient.Client, cluster: FakeCluster) -> None:
    keys = [f"k{number}" for number in range(100)]
    connect_all(db, cluster)
    db.put_many([(key, b"v") for key in keys])
    cluster.nodes[0].kill()
    assert db.get_many(keys) == [b"v"] * 100
    assert db.put_many([(key, b"w") for key in keys])
    cluster.nodes[0].start()
    before = len(cluster.nodes[0].received)
    while len(cluster.nodes[0].received) == before:
        db.get_many(keys, timeout=2)


def test_what_a_silent_node_owes_is_asked_elsewhere(
    db: kvclient.Client, cluster: FakeCluster
) -> None:
    connect_all(db, cluster)
    cluster.nodes[0].script = lambda row: Hold()
    keys = [f"k{number}" for number in range(50)]
    db.put_many([(key, b"v") for key in keys], timeout=2)
    assert db.get_many(keys, timeout=2) == [b"v"] * 50
    assert db.metrics.suspicions >= 1
    cluster.nodes[0].release()


def test_a_put_over_something_newer_is_redone_with_a_stamp_above_it(
    db: kvclient.Client, cluster: FakeCluster
) -> None:
    newer = cluster.hlc + (7_000 << 16)
    first = threading.Event()

    def once(row: Row) -> object:
        if first.is_set():
            return None
        first.set()
        return Newer(newer)

    cluster.script(once)
    written = db.put("k", b"v")
    one, two = cluster.received
    assert two.timestamp > newer
    assert written.timestamp == two.timestamp
    assert one.write_id != two.write_id
    assert two.context == context_of((7, 1))
    assert db.metrics.restamps == 1


def test_a_refusal_is_retried_at_another_node(db: kvclient.Client, cluster: FakeCluster) -> None:
    nodes: list[str] = []

    def refuse_twice(row: Row) -> object:
        nodes.append(row.node)
        return Refuse(pb.UNAVAILABLE) if len(nodes) < 3 else None

    cluster.script(refuse_twice)
    db.put("k", b"v")
    assert len(set(nodes)) == 3


@pytest.mark.parametrize(
    ("refusal", "error", "outcome"),
    [
        (Refuse(pb.UNAVAILABLE), kvclient.Unavailable, "not applied"),
        (Refuse(pb.UNCERTAIN, pb.UNCERTAIN_OUTCOME), kvclient.Uncertain, "uncertain"),
        (Refuse(pb.INVALID_REQUEST), kvclient.InvalidRequest, "not applied"),
        (Refuse(pb.UNKNOWN_KEYSPACE), kvclient.UnknownKeyspace, "not applied"),
        (Refuse(pb.STORAGE_FULL), kvclient.StorageFull, "not applied"),
        (Refuse(pb.UNAUTHENTICATED), kvclient.Unauthenticated, "not applied"),
        (Refuse(pb.OVERLOADED, retry_after_ms=9000), kvclient.Overloaded, "not applied"),
    ],
)
def test_a_write_that_every_node_refuses_ends_in_the_error_of_the_table(
    db: kvclient.Client,
    cluster: FakeCluster,
    refusal: Refuse,
    error: type[kvclient.KVError],
    outcome: str,
) -> None:
    cluster.script(lambda row: refusal)
    with pytest.raises(error, match="refused by the script") as caught:
        db.put("k", b"v", timeout=0.3)
    assert type(caught.value) is error
    assert caught.value.outcome == outcome
    assert caught.value.replies


def test_a_read_that_nobody_answers_times_out(db: kvclient.Client, cluster: FakeCluster) -> None:
    cluster.script(lambda row: Hold())
    with pytest.raises(kvclient.Timeout):
        db.get("k", timeout=0.1)


def test_several_values_are_raised_for_the_caller_to_merge(
    db: kvclient.Client, cluster: FakeCluster
) -> None:
    cluster.script(lambda row: Siblings())
    with pytest.raises(kvclient.MultipleValues) as caught:
        db.get("k")
    assert caught.value.values == (b"new", b"old")
    assert caught.value.context == context_of((1, 1), (2, 1))
    record = db.get_record("k")
    assert record is not None
    assert len(record.siblings) == 2
    assert "k" in db


def test_a_session_can_be_resumed_elsewhere(db: kvclient.Client, cluster: FakeCluster) -> None:
    db["k"] = b"v"
    with kvclient.Client(cluster.seeds, session=db.session.export()) as other:
        other.get("k")
    assert cluster.received[-1].context == context_of((7, 1))
    with kvclient.Client(cluster.seeds, session=False) as without:
        without.get("k")
        with pytest.raises(RuntimeError, match="keeps no session"):
            _ = without.session
    assert cluster.received[-1].context == b""


def test_a_session_of_its_own_shares_the_connection_and_nothing_else(
    db: kvclient.Client, cluster: FakeCluster
) -> None:
    db["k"] = b"v"
    ada = db.start_session()
    assert ada.get("k") == b"v"
    assert cluster.received[-1].context == b""
    assert ada.keyspace("carts").get("k") is None
    ada["k"] = b"w"
    assert cluster.received[-1].context == context_of((7, 1))
    names = {row.write_id[:8] for row in cluster.received if row.kind == "put"}
    assert len(names) == 2
    again = db.start_session(ada.session.export())
    again.get_many(["k"])
    assert cluster.received[-1].context != b""
    again.put_many({"k": b"x"})
    assert cluster.received[-1].write_id[:8] not in names
    assert ada.session is not db.session


def test_a_session_of_another_cluster_is_refused_as_it_begins(
    db: kvclient.Client, cluster: FakeCluster
) -> None:
    db["k"] = b"v"
    foreign = kvclient.Session()
    foreign.bind(b"x" * 16, 8)
    with pytest.raises(kvclient.InvalidRequest, match="another cluster"):
        db.start_session(foreign.export())
    with pytest.raises(kvclient.InvalidRequest, match="damaged"):
        db.start_session("nonsense")
    with kvclient.Client(cluster.seeds, session=False) as without:
        mine = without.start_session()
        mine["k"] = b"w"
        assert mine["k"] == b"w"
        assert cluster.received[-1].context != b""


def test_a_newer_topology_is_followed(db: kvclient.Client, cluster: FakeCluster) -> None:
    connect_all(db, cluster)
    cluster.members = cluster.nodes[:2]
    cluster.epoch = 2
    db.get("k1")
    assert db.topology.epoch == 2
    left = len(cluster.nodes[2].received)
    db.get_many([f"k{number}" for number in range(64)])
    assert len(cluster.nodes[2].received) == left


def test_many_threads_share_the_streams(db: kvclient.Client) -> None:
    def work(thread: int) -> None:
        for number in range(20):
            db[f"{thread}-{number}"] = b"%d" % thread

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert db.get_many([f"{thread}-19" for thread in range(16)]) == [
        b"%d" % thread for thread in range(16)
    ]


def test_status_says_none_for_a_dead_node(db: kvclient.Client, cluster: FakeCluster) -> None:
    cluster.nodes[1].kill()
    status = db.status(timeout=2)
    assert list(status) == ["n1", "n2", "n3"]
    assert status["n2"] is None
    assert status["n1"] is not None
    assert status["n1"].state == "up"


def test_conflicts_of_all_nodes_are_merged_by_key(db: kvclient.Client) -> None:
    conflicts = db.conflicts()
    assert [conflict.key for conflict in conflicts] == [b"k0", b"k1"]
    assert len(conflicts[0].siblings) == 3


def test_a_seed_that_is_dead_does_not_matter(cluster: FakeCluster) -> None:
    with kvclient.Client(f"127.0.0.1:1,{cluster.nodes[2].address}") as client:
        client["k"] = b"v"


def test_no_seed_that_answers_is_unavailable_and_says_what_was_tried() -> None:
    with pytest.raises(kvclient.Unavailable, match=r"127\.0\.0\.1:1: unreached.*127\.0\.0\.1:2:"):
        kvclient.Client(["127.0.0.1:1", "127.0.0.1:2"], timeout=3)
    assert _thread._process.thread is None


def test_a_closed_client_says_so_and_closing_again_is_harmless(cluster: FakeCluster) -> None:
    client = kvclient.Client(cluster.seeds)
    client.close()
    client.close()
    for call in (lambda: client.get("k"), lambda: client.get_many(["k"]), client.status):
        with pytest.raises(RuntimeError, match="closed"):
            call()
    assert _thread._process.thread is None


def test_a_call_under_way_ends_when_another_thread_closes(cluster: FakeCluster) -> None:
    cluster.script(lambda row: Hold())
    client = kvclient.Client(cluster.seeds)
    errors: list[BaseException] = []

    def put() -> None:
        try:
            client.put("k", b"v", timeout=60)
        except kvclient.KVError as error:
            errors.append(error)

    thread = threading.Thread(target=put)
    thread.start()
    cluster.wait_for(lambda: cluster.received)
    client.close()
    thread.join(10)
    assert isinstance(errors[0], kvclient.Uncertain)


PROGRAM = """
import os, sys
import kvclient
from tests.unit.client.fakes import FakeCluster
cluster = FakeCluster()
db = kvclient.Client(cluster.seeds)
db["k"] = b"v"
{body}
"""

FORK = """
child = os.fork()
if child == 0:
    for use in (lambda: db.get("k"), lambda: kvclient.Client(cluster.seeds)):
        try:
            use()
        except RuntimeError as error:
            assert "fork" in str(error)
        else:
            os._exit(3)
    db.close()
    os._exit(0)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
assert db["k"] == b"v"
db.close()
print("parent goes on")
"""


@pytest.mark.parametrize(
    ("body", "output"),
    [(FORK, "parent goes on\n"), ("print('left open')", "left open\n"), ("del db", "")],
    ids=["fork", "left-open", "lost"],
)
def test_a_program_ends_quietly(body: str, output: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={"PYTHONPATH": ":".join(sys.path)},
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, output, "")
