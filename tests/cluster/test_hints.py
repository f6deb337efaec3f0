"""Writes for owners that are dead or cut off: kept, shown, delivered, and never lost, as rows 1 and
10 of the list of failures have it.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

import kvclient
from kvclient.testing import Cluster as Kit
from kvnode.core.batch import Family
from kvnode.core.hints import decode_hint, hint_key
from kvnode.core.keys import encode_key, partition_of_key
from kvnode.core.record import decode
from kvnode.storage.engine import open_read_only
from kvproto import kv_pb2
from tests.support import seeds
from tests.support.journaled import journal_of, program
from tests.support.load import missing_on
from tests.support.nodes import Nodes, finished, output, until
from tests.support.powercut import cut_power
from tests.support.scale import scaled
from tests.support.wire import Refusal, call

Cluster = Callable[..., Nodes]

_STRICT = "\n[keyspace.strict]\nsloppy = false\n"
_PATIENT = "\n[limits]\nperiodic_sync_ms = 60000\n"
"""Only what somebody waits for is synced: no later sync hides a missing one."""
_REST_S = 12.0
_KILLS = scaled(1, soak=20)
_BATCH = 800
_IN_FLIGHT = 128


def owners(db: kvclient.Client, key: bytes, keyspace: str = "default") -> list[str]:
    """Return the ids of a key's owners, in order."""
    topology = db.topology
    names = {member.number: member.id for member in topology.members}
    place = partition_of_key(encode_key(keyspace, key), topology.partition_bits)
    return [names[number] for number in topology.walks[place][:3]]


def keys_of(db: kvclient.Client, *nodes: str, count: int, keyspace: str = "default") -> list[bytes]:
    """Return the first keys that all these nodes own."""
    every = (b"k%d" % number for number in itertools.count())
    mine = (key for key in every if {*nodes} <= {*owners(db, key, keyspace)})
    return list(itertools.islice(mine, count))


def pending(db: kvclient.Client, owner: str) -> int:
    """Return how many writes all nodes together keep for one."""
    ledgers = (kept for kept in db.hints().values() if kept is not None)
    return sum(each.pending for kept in ledgers for each in kept if each.owner == owner)


def not_kept(store: Path, owner: int, writes: Mapping[bytes, bytes]) -> list[bytes]:
    """Return those writes that a stopped node's store does not keep for an owner."""
    reader = open_read_only(store)
    try:
        places = [encode_key("default", key) for key in writes]
        found = reader.multi_get(Family.HINTS, [hint_key(owner, place) for place in places])
    finally:
        reader.close()
    missing = []
    for (key, value), place, data in zip(writes.items(), places, found, strict=True):
        versions = (
            decode(place, decode_hint(data).record).versions if isinstance(data, bytes) else ()
        )
        if all(version.value != value for version in versions):
            missing.append(key)
    return missing


def command(nodes: Nodes, *words: str) -> str:
    with finished(nodes.command(*words, "--data", str(nodes.local.directory))) as running:
        return output(running, within_s=_REST_S + 3)


def test_what_a_dead_owner_misses_is_kept_shown_and_delivered(cluster: Cluster) -> None:
    nodes = cluster(5)
    with nodes.client() as db:
        writes = {b"k%d" % number: b"v%d" % number for number in range(200)}
        missed = [key for key in writes if "n2" in owners(db, key)]
        nodes.kill("n2")
        # Of a put that two others acknowledged before the loss is noticed, no hint is kept.
        until(lambda: are_alone(db, "n1", "n3", "n4", "n5"), what="noticing a death")
        db.put_many(writes)
        # A third acknowledgement, which the put did not wait for, may still be on its way.
        until(lambda: pending(db, "n2") == len(missed), what="keeping what n2 misses")

        shown = json.loads(command(nodes, "hints", "--json"))["nodes"]
        assert [node["hints"] for node in shown if node["id"] == "n2"] == [None]
        kept = [each for node in shown for each in node["hints"] or ()]
        assert sum(each["pending"] for each in kept) == len(missed)
        assert {each["owner"] for each in kept} == {"n2"}
        with pytest.raises(kvclient.Timeout, match=r"no answer from n2; .* keeps hints: .* for n2"):
            db.wait_converged(0.5)

        nodes.start("n2")
        assert command(nodes, "wait-converged", "--timeout", str(_REST_S)).startswith("converged")
        assert pending(db, "n2") == 0
        ledgers = [each for kept in db.hints().values() for each in kept or ()]
        assert sum(each.delivered for each in ledgers) >= len(missed)
        owned = {name: [key for key in writes if name in owners(db, key)] for name in nodes.ids}
    nodes.stop()
    for name, keys in owned.items():
        held = {key: writes[key] for key in keys}
        assert missing_on(nodes.store(name), held) == []


def test_a_strict_keyspace_refuses_where_a_sloppy_one_goes_on(cluster: Cluster) -> None:
    nodes = cluster(5, settings=_STRICT)
    with nodes.client() as db:
        strict = db.keyspace("strict")
        refused = keys_of(db, "n1", "n2", count=10, keyspace="strict")
        taken = keys_of(db, "n1", "n2", count=10)
        nodes.kill("n1", "n2")
        until(lambda: are_alone(db, "n3", "n4", "n5"), what="noticing two deaths")
        with nodes.channel("n3") as channel:
            assert_refused(channel, refused)
        for key in taken:
            assert len(db.put(key, b"kept").acked_by) >= 2
        nodes.start("n1", "n2")
        db.wait_converged(_REST_S)
        assert strict.get_many(refused) == [None] * len(refused)
        assert db.get_many(taken) == [b"kept"] * len(taken)


def test_with_two_owners_cut_off_what_stand_ins_took_survives_their_kill(tmp_path: Path) -> None:
    # Row 1: 1,000 writes, two of whose three owners are cut off; then the fallbacks die.
    with Kit(5, directory=tmp_path / "kit", settings=_STRICT) as kit, kit.client() as db:
        writes = {key: key for key in keys_of(db, "n1", "n2", count=1_000)}
        strict = keys_of(db, "n1", "n2", count=5, keyspace="strict")
        kit.partition([["n3", "n4", "n5"]])
        until(lambda: are_alone(db, "n3", "n4", "n5"), what="noticing the cut")
        acked = db.put_many(writes, timeout=_REST_S)
        assert all(len({*result.acked_by}) >= 2 for result in acked)
        with grpc.insecure_channel(kit.node("n3").address) as channel:
            assert_refused(channel, strict)
        kit.kill("n3", "n4", "n5")
        kit.heal()
        kit.start("n3", "n4", "n5")
        db.wait_converged(_REST_S)
        assert db.get_many(writes) == list(writes.values())
        assert pending(db, "n1") == pending(db, "n2") == 0


def are_alone(db: kvclient.Client, *nodes: str) -> bool:
    """Tell whether these nodes know that they reach one another and nobody else.

    An operation begun before they do may be uncertain, and says so.
    """
    told = db.status()
    found = [(node, status) for node in nodes if (status := told[node]) is not None]
    return len(found) == len(nodes) and all(
        {peer for peer, state in status.peers.items() if state == "up"} == {*nodes} - {node}
        for node, status in found
    )


def assert_refused(channel: grpc.Channel, keys: Sequence[bytes]) -> None:
    """Assert that a strict put by way of one node, once each, happens nowhere.

    A client would ask on until its time is up, and may then wait for one more answer.
    """
    for key in keys:
        request = kv_pb2.PutRequest(keyspace="strict", key=key, value=b"never")
        answer = call(channel, "KV/Put", request)
        assert isinstance(answer, Refusal)
        assert answer.code is grpc.StatusCode.UNAVAILABLE
        assert answer.failure is not None
        assert answer.failure.outcome == kv_pb2.NOT_APPLIED


def test_a_hint_that_counted_survives_a_kill_and_a_power_cut(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Row 10: a stand-in dies at some moment under load, between two syncs or within one; what it
    # had acknowledged is on its disk, the log cut to its last completed sync. Its syncs are slow,
    # so that an acknowledgement before its sync would be much before.
    chance = random.Random(seeds.derive(seeds.run_seed(), "kills"))
    nodes = cluster(4, program=program("faithful"), settings=_PATIENT, start=False)
    nodes.start("n1", "n2", "n3")
    (tmp_path / "sync_delay_ms").write_text("100")
    monkeypatch.setenv("KVNODE_FAULTS", str(tmp_path))
    nodes.start("n4")
    monkeypatch.delenv("KVNODE_FAULTS")
    nodes.wait_linked()
    few = kvclient.Bounds(batch_in_flight=_IN_FLIGHT)
    with kvclient.Client(nodes.seeds, bounds=few) as db, ThreadPoolExecutor(1) as beside:
        absent = next(member.number for member in db.topology.members if member.id == "n1")
        mine = keys_of(db, "n1", "n2", "n3", count=_KILLS * _BATCH)
        writes: dict[bytes, bytes] = {}
        nodes.kill("n1")
        until(lambda: "n1" not in nodes.peers_up("n4"), what="noticing a death")
        for start in range(0, len(mine), _BATCH):
            batch = {key: b"of " + key for key in mine[start : start + _BATCH]}
            moment = chance.randint(_IN_FLIGHT + 50, _BATCH - 200)  # so that some are acknowledged
            putting = beside.submit(acked_of, db, batch)
            until(lambda: nodes.metric("n4", "hints_pending") >= moment, what="some load")  # noqa: B023 (called at once)
            nodes.kill("n4")
            kept = {key: batch[key] for key in putting.result()}
            assert 0 < len(kept) < len(batch)
            cut_power(nodes.store("n4"), journal_of(nodes.node("n4").folder))
            assert not_kept(nodes.store("n4"), absent, kept) == []
            writes |= kept
            nodes.start("n4")
            nodes.wait_linked()
        nodes.start("n1")
        db.wait_converged(_REST_S)
        assert db.get_many(writes, timeout=_REST_S) == list(writes.values())


def acked_of(db: kvclient.Client, batch: Mapping[bytes, bytes]) -> list[bytes]:
    """Put a batch in which every slot counts; return what was acknowledged."""
    try:
        db.put_many(batch, w=3, timeout=1.5)
    except kvclient.PartialFailure as failed:
        return [key for key in batch if key not in failed.errors]
    return list(batch)
