"""Turns: what is sent when, what waits for the log, and what a failing store does to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kvnode.core.batch import Family
from kvnode.core.bounds import TURN_OPERATIONS
from kvnode.core.messages import (
    ClientOps,
    ErrorCode,
    Failure,
    GetResult,
    Instant,
    PeerClock,
    PeerDown,
    PeerReplies,
    PeerRequests,
    PeerUp,
    PutResult,
    ReplicaReadReply,
    ReplicaWriteReply,
    SessionId,
    Status,
)
from kvnode.core.record import Encoded
from kvnode.core.topology import Durability, Keyspace, Topology
from kvnode.runtime.pump import as_events, now_us, wall_ms
from kvnode.storage.port import ReadFailure, StorageDamaged, StorageFenced
from tests.unit.core.builders import KEY, get, put, record, replica_write, topology, version
from tests.unit.runtime.builders import Driven, run, turns

ALONE = Keyspace(name="default", n=1, r=1, w=1)
LOOSE = Keyspace(name="default", n=1, r=1, w=1, durability=Durability.PERIODIC)
SESSION = SessionId(5)


def alone(keyspace: Keyspace = ALONE) -> Topology:
    return topology(1, keyspaces=[keyspace])


def soon() -> Instant:
    return Instant(now_us() + 5_000_000)


def write(value: bytes = b"v", number: int = 8, keyspace: Keyspace = ALONE) -> ClientOps:
    stamp = wall_ms() << 16 | number
    request = put(
        f"put{number}", value, id=number, w=1, keyspace=keyspace, deadline_us=soon(),
        timestamp=stamp,
    )  # fmt: skip
    return ClientOps(SESSION, (), (request,))


def read(number: int = 7) -> ClientOps:
    return ClientOps(SESSION, (get(id=number, r=1, keyspace=ALONE, deadline_us=soon()),), ())


def test_a_write_is_answered_only_once_it_is_durable() -> None:
    async def test() -> None:
        driven = Driven(alone())
        driven.pump.submit(write())
        await turns()
        assert driven.post.to_clients == []
        assert driven.syncs == [driven.engine.written]
        driven.sync()
        await turns()
        ((session, result),) = driven.post.to_clients
        assert session == SESSION
        assert isinstance(result, PutResult)
        assert result.acked == (1,)

    run(test)


def test_a_read_of_what_is_not_yet_durable_waits_for_it() -> None:
    async def test() -> None:
        driven = Driven(alone())
        driven.pump.submit(write(b"new"))
        await turns()
        driven.pump.submit(read())
        await turns()
        assert driven.post.to_clients == []
        driven.sync()
        await turns()
        values = [r.value for _, r in driven.post.to_clients if isinstance(r, GetResult)]
        assert values == [b"new"]

    run(test)


def test_a_read_of_what_is_durable_waits_for_nothing() -> None:
    async def test() -> None:
        driven = Driven(alone())
        driven.pump.submit(write(b"old"))
        await turns()
        driven.sync()
        await turns()
        driven.pump.submit(read())
        await turns()
        result = driven.post.to_clients[-1][1]
        assert isinstance(result, GetResult)
        assert result.value == b"old"

    run(test)


def test_a_turn_takes_no_more_than_its_bound_and_the_next_follows_at_once_in_order() -> None:
    async def test() -> None:
        driven = Driven(alone())
        reads = [read(number).gets[0] for number in range(1, 5 * TURN_OPERATIONS // 2 + 1)]
        for first in range(0, len(reads), 100):
            driven.pump.submit(ClientOps(SESSION, reads[first : first + 100], ()))
        driven.pump._run()
        answered = len(driven.post.to_clients)
        assert TURN_OPERATIONS <= answered < TURN_OPERATIONS + 100
        await turns()
        assert [result.id for _, result in driven.post.to_clients] == [get.id for get in reads]
        assert driven.pump.is_idle

    run(test)


def test_one_event_larger_than_a_turn_is_taken_whole() -> None:
    async def test() -> None:
        driven = Driven(alone())
        reads = [read(number).gets[0] for number in range(1, 2 * TURN_OPERATIONS)]
        driven.pump.submit(ClientOps(SESSION, reads, ()))
        driven.pump._run()
        assert len(driven.post.to_clients) == len(reads)

    run(test)


def test_periodic_durability_holds_no_answer_but_has_the_log_synced_later() -> None:
    async def test() -> None:
        driven = Driven(alone(LOOSE))
        driven.pump.submit(write(keyspace=LOOSE))
        await turns()
        assert isinstance(driven.post.to_clients[0][1], PutResult)
        assert driven.syncs == []
        assert driven.later == [driven.engine.written]

    run(test)


def test_events_of_one_instant_are_one_turn() -> None:
    async def test() -> None:
        driven = Driven(alone())
        for number in range(1, 6):
            driven.pump.submit(write(number=number))
        await turns()
        assert driven.engine.written == 1
        driven.sync()
        await turns()
        assert [result.id for _, result in driven.post.to_clients] == [1, 2, 3, 4, 5]

    run(test)


def test_replies_to_others_wait_for_the_log_and_refusals_do_not() -> None:
    async def test() -> None:
        driven = Driven()
        message = replica_write(record(version("a1")), "a1", id=3, deadline_us=soon())
        late = message._replace(id=4, deadline_us=Instant(0))
        driven.pump.submit(PeerRequests(2, [message, late]))
        await turns()
        refused = ReplicaWriteReply(4, Status.REFUSED_LATE, Encoded(b""))
        assert driven.post.to_peers == [(2, refused)]
        driven.sync()
        assert [(node, m.id) for node, m in driven.post.to_peers[1:]] == [(2, 3)]

    run(test)


def test_it_is_idle_when_nothing_waits_for_a_turn_or_the_log() -> None:
    async def test() -> None:
        driven = Driven(alone())
        seen = [driven.pump.is_idle]
        driven.pump.submit(write())
        seen.append(driven.pump.is_idle)
        await turns()
        seen.append(driven.pump.is_idle)
        driven.sync()
        await turns()
        seen.append(driven.pump.is_idle)
        assert seen == [True, False, False, True]

    run(test)


def test_a_stalled_batch_is_written_later_and_once_and_in_order() -> None:
    async def test() -> None:
        driven = Driven(alone())
        driven.engine.faults.is_stalled = True
        driven.pump.submit(write(b"one", 1))
        await turns()
        driven.pump.submit(write(b"two", 2))
        await turns()
        assert (driven.engine.written, driven.pump.is_idle) == (0, False)
        driven.engine.faults.is_stalled = False
        while driven.engine.written < 2:
            await turns()
        driven.sync()
        await turns()
        assert [result.id for _, result in driven.post.to_clients] == [1, 2]
        assert all(isinstance(result, PutResult) for _, result in driven.post.to_clients)

    run(test)


def test_a_disk_without_reserve_is_waited_out_and_alarmed_once() -> None:
    async def test() -> None:
        driven = Driven(alone())
        driven.engine.faults.is_full = True
        delete = write()  # The watermark lets it pass.
        delete.puts = [one._replace(is_delete=True, value=b"") for one in delete.puts]
        driven.pump.submit(delete)
        await turns()
        driven.engine.faults.is_full = False
        while not driven.engine.written:
            await turns()
        driven.sync()
        await turns()
        assert isinstance(driven.post.to_clients[0][1], PutResult)
        assert [alarm.split(",")[0] for alarm in driven.alarms] == ["the disk is full"]
        assert not driven.pump.failed.done()

    run(test)


def test_below_the_watermark_writes_are_refused_in_the_very_next_turn() -> None:
    async def test() -> None:
        driven = Driven(alone())
        driven.engine.faults.is_full = True
        driven.pump.submit(write())
        await turns()
        failure = driven.post.to_clients[0][1]
        assert isinstance(failure, Failure)
        assert failure.code is ErrorCode.STORAGE_FULL
        driven.engine.faults.is_full = False
        driven.pump.submit(write(number=9))
        await turns()
        assert driven.engine.written == 1

    run(test)


def test_a_store_that_fails_stops_the_node() -> None:
    async def test() -> None:
        driven = Driven(alone())
        driven.engine.write = broken(StorageFenced("gone"))  # type: ignore[method-assign]
        driven.pump.submit(write())
        with pytest.raises(StorageFenced):
            await driven.pump.failed

    run(test)


def test_a_bug_in_a_turn_stops_the_node_and_no_later_turn_runs() -> None:
    async def test() -> None:
        driven = Driven(alone())
        driven.node.apply = broken(ZeroDivisionError())  # type: ignore[method-assign]
        driven.pump.submit(write())
        with pytest.raises(ZeroDivisionError):
            await driven.pump.failed
        before = driven.pump.turns
        driven.pump.submit(write(number=9))
        await turns()
        assert driven.pump.turns == before

    run(test)


def test_only_the_first_failure_is_told() -> None:
    async def test() -> None:
        driven = Driven(alone())
        driven.pump.fail(OSError("first"))
        driven.pump.fail(OSError("second"))
        with pytest.raises(OSError, match="first"):
            await driven.pump.failed

    run(test)


def test_after_closing_no_turn_runs() -> None:
    async def test() -> None:
        driven = Driven(alone())
        driven.pump.submit(write())
        driven.pump.close()
        await turns()
        assert (driven.pump.turns, driven.engine.written) == (0, 0)

    run(test)


def test_a_record_that_cannot_be_read_is_no_absence_and_ends_the_node() -> None:
    async def test() -> None:
        driven = Driven(alone())
        driven.engine.spaces.unreadable[Family.RECORDS, KEY] = "Corruption: injected"
        driven.pump.submit(read())
        await turns()
        failure = driven.post.to_clients[0][1]
        assert isinstance(failure, Failure)
        assert any("cannot be read" in alarm for alarm in driven.alarms)
        with pytest.raises(StorageDamaged):
            await driven.pump.failed

    run(test)


def test_a_record_that_may_be_readable_later_is_abstained_on_and_the_node_goes_on() -> None:
    async def test() -> None:
        driven = Driven(alone())
        later = ReadFailure("too many open files", is_damage=False)
        driven.engine.multi_get = lambda *_: [later]  # type: ignore[method-assign]
        driven.pump.submit(read())
        await turns()
        assert isinstance(driven.post.to_clients[0][1], Failure)
        assert not driven.pump.failed.done()

    run(test)


def test_an_operation_is_answered_at_its_deadline_without_any_event() -> None:
    async def test() -> None:
        driven = Driven(topology(3))
        driven.pump.submit(PeerUp(2))
        driven.pump.submit(PeerUp(3))
        request = get(deadline_us=Instant(now_us() + 20_000))
        driven.pump.submit(ClientOps(SESSION, (request,), ()))
        await driven.post.answered.wait()
        failure = driven.post.to_clients[0][1]
        assert isinstance(failure, Failure)
        assert failure.code is ErrorCode.TIMEOUT
        assert now_us() >= request.deadline_us

    run(test)


def test_a_lost_peer_is_told_to_the_core_before_what_comes_after_it() -> None:
    async def test() -> None:
        driven = Driven(topology(3))
        driven.pump.submit(PeerUp(2))
        driven.pump.submit(PeerClock(2, 5))
        driven.pump.submit(PeerDown(2))
        driven.pump.submit(ClientOps(SESSION, (get(deadline_us=soon()),), ()))
        await turns()
        failure = driven.post.to_clients[0][1]
        assert isinstance(failure, Failure)
        assert failure.code is ErrorCode.UNAVAILABLE

    run(test)


def test_messages_become_the_events_that_they_are() -> None:
    written = replica_write(record(version("a1")), "a1")
    done = ReplicaWriteReply(1, Status.DONE, written.record)
    found = ReplicaReadReply(2, Status.DONE, written.record, False)
    result = PutResult(3, b"", (1,), 0)
    events = as_events(9, [done, written, result, found])
    assert events == [PeerRequests(9, [written], (), ()), PeerReplies(9, [done], [found], [result])]
    assert as_events(9, []) == []


def broken(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def test_woken_without_an_event_it_runs_one_turn() -> None:
    async def test() -> None:
        driven = Driven(alone())
        driven.pump.wake()
        await turns()  # the first one begins what a node does in the background
        before, events = driven.pump.turns, driven.pump.events
        driven.pump.wake()
        driven.pump.wake()
        await turns()
        assert (driven.pump.turns, driven.pump.events) == (before + 1, events)

    run(test)
