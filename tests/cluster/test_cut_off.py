"""Nodes that are cut off from one another: who still answers, how soon the others refuse, and that
they agree again afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from kvclient.testing import SHAPES, Cluster, flows_cut
from kvclient.testing.converge import wait_converged
from kvclient.testing.schedule import Fault
from kvclient.testing.shapes import groups_of
from kvclient.testing.workloads import KEYSPACES, Load
from kvproto import kv_pb2
from tests.support.figures import tell
from tests.support.nodes import until
from tests.support.scale import lasting, scaled
from tests.support.trials import changes, most_in_a_minute, suffer
from tests.support.wire import Refusal, call

_KEYS = tuple(f"k{number}" for number in range(40))
_DEADLINE_S = 20.0
_SOON_S = 5.0
"""Generous: a refusal takes milliseconds. What waits for its deadline takes four times as long."""

Reached = Mapping[str, frozenset[str]]


# ---- 32: partitions ---------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_a_partition_costs_only_those_without_a_quorum_and_ends_in_one_view(shape: str) -> None:
    with Cluster(5, settings=KEYSPACES) as cluster, channels(cluster) as nodes:
        owners = owners_of(cluster)
        cluster.partition(shape)
        reached = reach(cluster.ids, shape)
        wait_noticed(cluster, reached)
        strict = write_everywhere(nodes, "strict")
        sloppy = write_everywhere(nodes, "default")

        for (node, key), answer in strict.items():
            can = reaches_quorum(node, owners[key], reached)
            assert_fit(answer, can=can, why=f"{key} at {node}, owned by {owners[key]}")
        for (node, key), answer in sloppy.items():
            assert_fit(answer, can=len(reached[node]) >= 2, why=f"{key} at {node}")

        cluster.heal()
        cluster.wait_linked()
        assert asyncio.run(converged(cluster))
        for keyspace, answers in (("strict", strict), ("default", sloppy)):
            views = {node: view(channel, keyspace) for node, channel in nodes.items()}
            assert len(set(views.values())) == 1, views
            for key, value in zip(_KEYS, views["n1"], strict=True):
                assert value in possible(answers, key, is_last=keyspace == "strict")


async def converged(cluster: Cluster) -> bool:
    """Wait until the owners of every key agree; return whether they came to."""
    keys = [(keyspace, key) for keyspace in ("strict", "default") for key in _KEYS]
    async with cluster.async_client(session=False) as db:
        return await wait_converged(db, keys, _DEADLINE_S) is not None


Answer = tuple[kv_pb2.PutResponse | Refusal, float]
"""What a node answered to a put, and after how many seconds."""


def write_everywhere(
    nodes: Mapping[str, grpc.Channel], keyspace: str
) -> dict[tuple[str, str], Answer]:
    """Put every key at every node, one after another, each time with the node's own value."""
    found: dict[tuple[str, str], Answer] = {}
    for node, channel in nodes.items():
        for key in _KEYS:
            request = kv_pb2.PutRequest(
                keyspace=keyspace, key=key.encode(), value=f"{key} by {node}".encode()
            )
            began = time.monotonic()
            answer = call(channel, "KV/Put", request, timeout=_DEADLINE_S)
            found[node, key] = answer, time.monotonic() - began
    return found


def reaches_quorum(node: str, owners: frozenset[str], reached: Reached) -> bool | None:
    """Tell whether a node can have a strict write acknowledged; None if that is up to chance.

    One that is no owner leaves it to an owner that it reaches, whichever that is.
    """
    heirs = [node] if node in owners else sorted(owners & reached[node])
    able = {len(owners & reached[heir]) >= 2 for heir in heirs} or {False}
    return None if len(able) > 1 else able.pop()


def assert_fit(answer: Answer, *, can: bool | None, why: str) -> None:
    """Assert that a put was acknowledged, or was refused as certainly nowhere, and soon."""
    said, took_s = answer
    assert can is None or isinstance(said, Refusal) != can, (why, said)
    assert took_s < _SOON_S, (why, said, took_s)
    if isinstance(said, Refusal):
        assert said.code is grpc.StatusCode.UNAVAILABLE, (why, said)


def possible(
    answers: Mapping[tuple[str, str], Answer], key: str, *, is_last: bool
) -> Sequence[bytes | None]:
    """Return what may be read of a key: one of the values that were acknowledged, or the last."""
    acked: list[bytes | None] = [
        f"{name} by {node}".encode()
        for (node, name), (said, _) in answers.items()
        if name == key and not isinstance(said, Refusal)
    ]
    return (acked[-1:] if is_last else acked) or [None]


def view(channel: grpc.Channel, keyspace: str) -> tuple[bytes | None, ...]:
    """Return what a node reads of every key, all owners asked."""
    found: list[bytes | None] = []
    for key in _KEYS:
        request = kv_pb2.GetRequest(keyspace=keyspace, key=key.encode(), r=3)
        answer: Any = call(channel, "KV/Get", request, timeout=_DEADLINE_S)
        assert isinstance(answer, kv_pb2.GetResponse), answer
        found.append(answer.value if answer.found else None)
    return tuple(found)


@contextmanager
def channels(cluster: Cluster) -> Iterator[dict[str, grpc.Channel]]:
    """Open a channel to each node, that asks no other."""
    opened = {name: grpc.insecure_channel(cluster.node(name).address) for name in cluster.ids}
    try:
        yield opened
    finally:
        for channel in opened.values():
            channel.close()


def owners_of(cluster: Cluster) -> dict[str, frozenset[str]]:
    """Return the owners of every key, the same in both keyspaces if they hash alike."""
    with cluster.client() as db:
        strict = db.keyspace("strict")
        found: dict[str, frozenset[str]] = {}
        for key in _KEYS:
            record = strict.get_record(key, r=3, explain=True)
            assert record is not None
            assert record.explain is not None
            found[key] = frozenset(r.node for r in record.explain.replicas if r.is_primary)
        return found


def reach(ids: Sequence[str], shape: str) -> Reached:
    """Return whom each node reaches under a partition, itself included."""
    cut = set(flows_cut(ids, groups_of(shape, ids)))
    return {x: frozenset(y for y in ids if (x, y) not in cut) for x in ids}


def wait_noticed(cluster: Cluster, reached: Reached) -> None:
    """Wait until every node knows whom it no longer reaches."""
    with cluster.client(session=False) as db:

        def is_noticed() -> bool:
            told = db.status(timeout=2.0)
            return all(
                (one := told[name]) is not None
                and {peer for peer, state in one.peers.items() if state == "up"} | {name} == whom
                for name, whom in reached.items()
            )

        until(is_noticed, what="noticing the partition")


# ---- 20: a cut one way ------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_a_one_way_cut_is_noticed_by_both_ends_with_few_changes_and_costs_nothing() -> None:
    seconds = lasting(6, soak_s=150)
    load = Load(
        workloads=("mixed", "register"),
        seconds=seconds,
        rate=scaled(200, soak=1_000),
        workers=24,
        timeout_s=10.0,
    )
    cut = Fault(at_s=0.5, kind="cut", nodes=("n1", "n2"), for_s=seconds - 1.0)
    with Cluster(5, settings=KEYSPACES) as cluster:
        began = time.time()
        trial = suffer(cluster, load, [cut])
        found = {
            name: [change for change in changes(cluster.log(name)) if change[0] >= began]
            for name in cluster.ids
        }
    most = {name: most_in_a_minute(one) for name, one in found.items()}
    tell("one-way cut", **trial.figures(), most_changes_a_minute=max(most.values()))
    assert "n2" in {peer for _, peer in found["n1"]}
    assert "n1" in {peer for _, peer in found["n2"]}
    assert max(most.values()) <= 3, found
    trial.check()
