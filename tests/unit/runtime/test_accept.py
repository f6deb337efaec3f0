"""What a node lets another say to it, over real streams: hellos, epochs, and who is who."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import grpc
import pytest

from kvnode.core.messages import (
    Instant,
    PeerMessage,
    ReplicaRead,
    ReplicaReadReply,
    ReplicaWriteReply,
    Status,
    WriteKind,
)
from kvnode.core.record import Encoded
from kvnode.core.topology import NodeId
from kvnode.runtime.peer_codec import Header, PeerCodec, new_frame
from kvnode.runtime.pump import now_us
from kvnode.runtime.topology_codec import encode_topology
from kvproto import peer_pb2
from tests.unit.core.builders import KEY, put, record, replica_write, topology, version
from tests.unit.runtime.builders import Site, Talk, edge, run, turns

OTHERS_LIFE = 22


def frame(epoch: int = 1, cluster: bytes = b"c" * 16) -> peer_pb2.PeerFrame:
    return new_frame(Header(cluster, epoch, 0))


def hello(
    node: str = "n2", life: int = OTHERS_LIFE, start: int = 1, epoch: int = 1, **said: Any
) -> Any:
    first = frame(epoch)
    first.hello.CopyFrom(peer_pb2.Hello(node=node, incarnation=life, start_number=start, **said))
    return first


def requests(*messages: PeerMessage, epoch: int = 1) -> bytes:
    return PeerCodec(edge(), now_us).encode(frame(epoch), messages)


def read(number: int, **changes: Any) -> ReplicaRead:
    deadline = Instant(now_us() + 5_000_000)
    return ReplicaRead(number, KEY, deadline, b"")._replace(**changes)


async def heard(talk: Talk) -> peer_pb2.PeerFrame:
    return peer_pb2.PeerFrame.FromString(await talk.hear())


async def linked(site: Site, kind: str = "Link", **changes: Any) -> Talk:
    """Open a stream and say hello on it."""
    before = site.peers._streams.get((2, kind))
    talk = site.open(f"Peer/{kind}")
    await talk.say(hello(**changes))
    answer = await heard(talk)
    assert not answer.hello.refused, answer.hello.reason
    while site.peers._streams.get((2, kind)) is before:
        await turns()
    return talk


async def asked(talk: Talk, *messages: PeerMessage, epoch: int = 1) -> peer_pb2.PeerFrame:
    await talk.say(requests(*messages, epoch=epoch))
    return await heard(talk)


def test_a_hello_is_answered_with_ones_own() -> None:
    async def test() -> None:
        async with Site() as site:
            talk = site.open("Peer/Link")
            await talk.say(hello())
            answer = await heard(talk)
            assert (answer.hello.node, answer.hello.start_number) == ("n1", 1)
            assert answer.hello.incarnation == site.identity.incarnation
            assert site.identity.known("n2") == (1, OTHERS_LIFE)

    run(test)


@pytest.mark.parametrize(
    ("first", "code", "text"),
    [
        (b"\xff\xff", grpc.StatusCode.INVALID_ARGUMENT, "not a peer frame"),
        (
            frame(cluster=b"x" * 16).SerializeToString(),
            grpc.StatusCode.PERMISSION_DENIED,
            "another cluster",
        ),
        (frame().SerializeToString(), grpc.StatusCode.PERMISSION_DENIED, "'' is no member"),
        (
            hello("n9").SerializeToString(),
            grpc.StatusCode.PERMISSION_DENIED,
            "'n9' is no member",
        ),
    ],
    ids=["garbage", "foreign", "nobody", "stranger"],
)
def test_who_does_not_belong_is_refused(first: bytes, code: grpc.StatusCode, text: str) -> None:
    async def test() -> None:
        async with Site() as site:
            talk = site.open("Peer/Link")
            await talk.say(first)
            ended = await talk.end()
            assert ended[0] is code
            assert text in ended[1]
            assert not site.pump.failed.done()

    run(test)


def test_requests_are_answered_on_the_stream_that_they_came_on() -> None:
    async def test() -> None:
        async with Site() as site:
            talk = await linked(site)
            answer = await asked(talk, read(5), read(6))
            assert list(answer.read_replies.id) == [5, 6]
            assert answer.epoch == 1

    run(test)


def test_an_acknowledgement_waits_for_the_log() -> None:
    async def test() -> None:
        async with Site() as site:
            talk = await linked(site)
            write = replica_write(record(version("a1")), "a1", deadline_us=read(1).deadline_us)
            await talk.say(requests(write))
            answer = await asked(talk, read(9, key=b"\x00" * 8 + KEY[8:]))
            assert list(answer.read_replies.id) == [9]
            assert not answer.HasField("write_replies")
            site.sync()
            assert list((await heard(talk)).write_replies.id) == [write.id]

    run(test)


def test_a_heartbeat_is_echoed_though_there_is_nothing_to_say() -> None:
    async def test() -> None:
        async with Site() as site:
            talk = await linked(site)
            for number in (7, 8):
                beat = frame()
                beat.heartbeat.wall_ms = 5
                beat.heartbeat.seq = number
                await talk.say(beat)
                answer = await heard(talk)
                assert (answer.heartbeat.reply, answer.heartbeat.echo) == (True, number)
                assert answer.heartbeat.wall_ms > 5
                assert not answer.heartbeat.draining

    run(test)


def test_a_stopping_node_tells_its_peers_at_once_and_echoes_nothing_for_it() -> None:
    async def test() -> None:
        async with Site() as site:
            talk = await linked(site)
            await linked(site, "Bulk")
            site.peers.drain()
            answer = await heard(talk)
            assert (answer.heartbeat.draining, answer.heartbeat.echo) == (True, 0)

    run(test)


def test_a_request_of_an_older_epoch_is_refused_with_the_topology_attached() -> None:
    async def test() -> None:
        newer = topology().with_members(topology().members)
        async with Site(newer) as site:
            talk = site.open("Peer/Link")
            await talk.say(hello())
            assert (await heard(talk)).topology == encode_topology(newer)
            write = replica_write(record(version("a1")), "a1")
            repair = write._replace(id=0, kind=WriteKind.REPAIR)
            answer = await asked(talk, write, repair, read(6), put(id=7))
            assert answer.topology == encode_topology(newer)
            assert list(answer.write_replies.id) == [write.id]
            assert list(answer.write_replies.status) == [Status.REFUSED_EPOCH]
            assert list(answer.read_replies.status) == [Status.REFUSED_EPOCH]
            (failure,) = answer.forward_failures
            assert failure.message == "epoch 1 is older than 2"
            assert site.engine.written == 2  # a start of this node, one of its peer
            accepted = site.peers._streams[(2, "Link")]
            assert accepted.in_flight.count == 0

    run(test)


def test_a_request_of_a_newer_epoch_brings_this_node_there_and_is_answered() -> None:
    async def test() -> None:
        newer = topology().with_members(topology().members)
        async with Site() as site:
            talk = await linked(site)
            ahead = frame(2)
            ahead.topology.CopyFrom(encode_topology(newer))
            await talk.say(ahead)
            answer = await asked(talk, read(6), epoch=2)
            assert list(answer.read_replies.id) == [6]
            assert site.identity.topology == newer

    run(test)


def test_a_second_life_of_a_living_node_is_refused_on_either_stream() -> None:
    async def test() -> None:
        async with Site(silence_ms=60_000) as site:
            await linked(site)
            await linked(site, "Bulk")
            for kind in ("Link", "Bulk"):
                talk = site.open(f"Peer/{kind}")
                await talk.say(hello(life=33, start=2))
                answer = await heard(talk)
                assert answer.hello.refused
                assert f"alive as incarnation {OTHERS_LIFE:016x}" in answer.hello.reason
                assert not answer.hello.final  # nobody answers at its address: it may be dying
                assert (await talk.end())[0] is grpc.StatusCode.ALREADY_EXISTS
            assert site.identity.known("n2") == (1, OTHERS_LIFE)

    run(test)


def test_a_silent_bulk_stream_does_not_let_a_copy_in() -> None:
    async def test() -> None:
        async with Site(silence_ms=50) as site:
            link, _ = await linked(site), await linked(site, "Bulk")
            site.peers._streams[(2, "Bulk")].heard_us = Instant(0)
            site.peers._streams[(2, "Link")].heard_us = Instant(now_us() + 10_000_000)
            talk = site.open("Peer/Bulk")
            await talk.say(hello(life=33, start=2))
            assert (await heard(talk)).hello.refused
            assert not link.call.done()

    run(test)


def test_a_new_life_follows_one_that_has_fallen_silent_and_ends_its_streams() -> None:
    async def test() -> None:
        async with Site() as site:
            old = [await linked(site), await linked(site, "Bulk")]
            for accepted in site.peers._streams.values():
                accepted.heard_us = Instant(0)
            await linked(site, life=33, start=2)
            for talk in old:
                await talk.end()
            assert site.identity.known("n2") == (2, 33)
            assert [one.incarnation for one in site.peers._streams.values()] == [33]

    run(test)


def answering(site: Site, life: int) -> list[tuple[str, str]]:
    """Have this life answer wherever the site asks; return what it will have asked."""
    asked: list[tuple[str, str]] = []

    async def who_answers(address: str, node: NodeId) -> int:
        asked.append((address, node))
        return life

    site.peers._who_answers = who_answers
    return asked


HERE, THERE = "a" * 32 + " box:/n2", "b" * 32 + " box:/copy"


async def refused(site: Site, **claim: Any) -> peer_pb2.Hello:
    """Say hello on a stream of its own; return the refusal."""
    talk = site.open("Peer/Link")
    await talk.say(hello(**claim))
    answer = await heard(talk)
    assert answer.hello.refused
    assert (await talk.end())[0] is grpc.StatusCode.ALREADY_EXISTS
    return answer.hello


def test_a_second_life_is_refused_for_good_while_the_first_answers_at_its_address() -> None:
    async def test() -> None:
        async with Site() as site:
            await linked(site, place=HERE)
            asked = answering(site, OTHERS_LIFE)
            no = await refused(site, life=33, start=2, place=HERE)
            assert no.final
            assert f"alive as incarnation {OTHERS_LIFE:016x} at box:/n2" in no.reason
            member = site.identity.topology.member("n2")
            assert member is not None
            assert asked == [(member.address, "n2")]

    run(test)


def test_a_higher_start_from_elsewhere_is_a_copy_if_the_known_life_answers() -> None:
    """Also while that life happens not to be linked."""

    async def test() -> None:
        async with Site() as site:
            site.identity.on_hello(hello(place=HERE).hello)
            answering(site, OTHERS_LIFE)
            assert (await refused(site, life=33, start=2, place=THERE)).final
            assert (await refused(site, life=33, start=2, place=THERE, restored=True)).final
            assert site.identity.known("n2") == (1, OTHERS_LIFE)

    run(test)


@pytest.mark.parametrize("answers", [0, 33], ids=["nobody", "the claimant"])
def test_a_higher_start_from_elsewhere_is_a_move_if_the_known_life_is_gone(answers: int) -> None:
    async def test() -> None:
        async with Site() as site:
            site.identity.on_hello(hello(place=HERE).hello)
            answering(site, answers)
            await linked(site, life=33, start=2, place=THERE)
            assert site.identity.known_life("n2").place == THERE

    run(test)


def test_a_copy_of_a_life_that_is_down_just_now_is_refused_for_good() -> None:
    async def test() -> None:
        async with Site() as site:
            site.identity.on_hello(hello(start=2, place=HERE).hello)
            asked = answering(site, 0)
            no = await refused(site, life=33, start=2, place=THERE)
            assert no.final
            assert "held by a life at box:/n2 (start 2" in no.reason
            await linked(site, life=33, start=2, place=THERE, restored=True)
            assert site.identity.known("n2") == (3, 33)
            assert len(asked) == 2

    run(test)


def test_an_older_folder_in_its_own_place_is_let_in_and_told_what_is_known() -> None:
    async def test() -> None:
        async with Site() as site:
            site.identity.on_hello(hello(start=7, place=HERE).hello)
            talk = site.open("Peer/Link")
            await talk.say(hello(life=33, start=2, place=HERE))
            answer = (await heard(talk)).hello
            assert not answer.refused
            assert (answer.known_start, answer.known_incarnation) == (7, OTHERS_LIFE)

    run(test)


def test_the_same_life_may_dial_again_and_its_earlier_stream_ends() -> None:
    async def test() -> None:
        async with Site() as site:
            first = await linked(site)
            second = await linked(site)
            await first.end()
            assert list((await asked(second, read(6))).read_replies.id) == [6]

    run(test)


def test_who_claims_to_be_this_very_node_is_refused() -> None:
    async def test() -> None:
        async with Site() as site:
            talk = site.open("Peer/Link")
            await talk.say(hello("n1", life=33))
            answer = await heard(talk)
            assert answer.hello.reason == "n1 is this node, and it is alive"

    run(test)


def test_a_frame_that_makes_no_sense_ends_the_stream_and_not_the_node() -> None:
    async def test() -> None:
        async with Site() as site:
            talk = await linked(site)
            broken = frame()
            broken.reads.id.append(1)
            await talk.say(broken)
            assert (await talk.end())[0] is grpc.StatusCode.INVALID_ARGUMENT
            await linked(site)
            assert not site.pump.failed.done()

    run(test)


def test_a_bug_in_taking_a_frame_ends_the_node() -> None:
    async def test() -> None:
        async with Site() as site:
            talk = await linked(site)
            site.peers.codec.requests = None  # type: ignore[method-assign, assignment]
            await talk.say(requests(read(1)))
            with pytest.raises(TypeError):
                await site.pump.failed

    run(test)


def test_large_replies_travel_on_the_bulk_stream() -> None:
    async def test() -> None:
        async with Site(bulk_bytes=1_024) as site:
            link, bulk = await linked(site), await linked(site, "Bulk")
            large = ReplicaReadReply(5, Status.DONE, Encoded(bytes(2_000)), False)
            small = ReplicaWriteReply(6, Status.DONE, Encoded(b""))
            site.peers.reply(2, [large, small])
            assert list((await heard(bulk)).read_replies.id) == [5]
            assert list((await heard(link)).write_replies.id) == [6]

    run(test)


def test_without_a_bulk_stream_large_replies_travel_with_the_others() -> None:
    async def test() -> None:
        async with Site(bulk_bytes=1_024) as site:
            link = await linked(site)
            site.peers.reply(2, [ReplicaReadReply(5, Status.DONE, Encoded(bytes(2_000)), False)])
            assert list((await heard(link)).read_replies.id) == [5]

    run(test)


def test_a_large_answer_leaves_nothing_in_flight_on_the_small_stream() -> None:
    async def test() -> None:
        async with Site(bulk_bytes=1_024) as site:
            link, bulk = await linked(site), await linked(site, "Bulk")
            in_flight = site.peers._streams[(2, "Link")].in_flight
            in_flight.begin([read(5)], is_bulk=False)
            site.peers.reply(2, [ReplicaReadReply(5, Status.DONE, Encoded(bytes(2_000)), False)])
            await heard(bulk)
            assert in_flight.count == 0
            assert list((await asked(link, read(6))).read_replies.id) == [6]

    run(test)


def test_replies_to_who_has_no_stream_here_are_dropped() -> None:
    async def test() -> None:
        async with Site() as site:
            site.peers.reply(3, [ReplicaWriteReply(1, Status.DONE, Encoded(b""))])
            assert site.peers._streams == {}

    run(test)


def test_a_peer_that_does_not_read_its_replies_loses_its_stream() -> None:
    async def test() -> None:
        async with Site(outbox_bytes=1 << 20, bulk_bytes=16 << 20) as site:
            await linked(site)
            accepted = site.peers._streams[(2, "Link")]
            reply = ReplicaReadReply(1, Status.DONE, Encoded(bytes(256 << 10)), False)
            while not accepted.outgoing.is_closed:
                site.peers.reply(2, [reply])
                await turns()
            other = await linked(site)
            assert list((await asked(other, read(6))).read_replies.id) == [6]

    run(test)


def test_a_stopping_node_coordinates_no_forwarded_write_but_still_takes_copies() -> None:
    async def test() -> None:
        async with Site() as site:
            talk = await linked(site)
            site.peers.drain()
            assert (await heard(talk)).heartbeat.draining
            answer = await asked(talk, put(id=7), read(6))
            (failure,) = answer.forward_failures
            assert (failure.id, failure.message) == (7, "this node is stopping")
            if not answer.HasField("read_replies"):
                answer = await heard(talk)
            assert list(answer.read_replies.id) == [6]

    run(test)


def test_ending_all_streams_takes_nothing_more_from_them() -> None:
    async def test() -> None:
        async with Site() as site:
            talk = await linked(site)
            site.peers.end_streams()
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await talk.say(requests(read(6)))
            await talk.end()
            assert site.pump.events == 0

    run(test)
