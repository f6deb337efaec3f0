"""When what is compared with whom, and what a doubt changes about that."""

from __future__ import annotations

from kvnode.core.bounds import Limits
from kvnode.core.conversations import AskRoots, RootAnswer, TellRoots, Verdict
from kvnode.core.keys import Partition
from kvnode.core.messages import Instant, Outbox
from kvnode.core.sweeps import SWEEP_ID, Sweeps
from kvnode.core.trees import Trees
from tests.support.sides import Side, Sides, keys_of, three_owners
from tests.unit.core.builders import dot, record, version

P = Partition(0)


def linked(nodes: int = 3, limits: Limits | None = None) -> Sides:
    sides = Sides(three_owners(nodes=nodes), limits)
    for a in sides.sides:
        for b in range(a + 1, nodes + 1):
            sides.link(a, b)
    return sides


def fill(sides: Sides, count: int = 30) -> None:
    for at, key in enumerate(keys_of(0, count)):
        for side in sides.sides.values():
            side.hold(key, record(version(f"a{at + 1}", key=key)))


def test_of_two_owners_the_lower_number_asks_once_in_an_interval() -> None:
    sides = linked(2, Limits(exchange_interval_ms=1_000))
    sides.run(12.5)
    assert sides.asked == {"AskRoots": 11, "TellRoots": 11}  # after two seconds, then each second
    assert sides[2].sweeps.progress.line(1, P).completed == 0


def test_nothing_is_compared_with_a_peer_that_is_lost() -> None:
    sides = linked(2)
    sides.part(1, 2)
    sides.run(60)
    assert sides.asked == {}
    assert sides[1].sweeps.next_wake() is None


def test_a_kick_begins_at_once() -> None:
    sides = linked(2)
    sides[1].sweeps.kick(sides.now)
    sides.run(0)
    assert sides.asked["AskRoots"] == 1


def test_ids_are_told_from_all_others() -> None:
    sides = linked(2)
    out = Outbox()
    sides[1].sweeps.kick(sides.now)
    sides[1].sweeps.on_time(sides.now, out)
    (message,) = out.held_peers[2]
    assert message.id >> 60 == SWEEP_ID >> 60


# ---- doubt --------------------------------------------------------------------------------------


def test_an_owner_in_doubt_asks_everybody_at_once_and_is_proven_partition_by_partition() -> None:
    sides = linked()
    fill(sides)
    sides[3].lose(P)
    proven: list[Partition] = []
    sides[3].sweeps.on_proven = proven.append
    for peer in (1, 2):
        sides.link(3, peer)
    sides.run(0.5)
    assert proven == [P]
    assert sides[3].proving.is_whole
    assert sides[3].records == sides[1].records
    assert sides[3].floors.report(P) == sides[1].floors.report(P)


def test_one_proven_other_of_two_does_not_prove() -> None:
    sides = linked()
    fill(sides)
    sides.part(3, 2)
    sides[3].lose(P)
    sides.run(60)
    assert sides[3].records == sides[1].records
    assert not sides[3].proving.is_proven(P)
    sides.link(3, 2)
    sides.run(30)
    assert sides[3].proving.is_proven(P)


def test_owners_that_are_all_in_doubt_settle_it_among_themselves() -> None:
    sides = linked()
    keys = keys_of(0, 30)
    for at, key in enumerate(keys):  # each write is at two of three
        for number in (1 + at % 3, 1 + (at + 1) % 3):
            sides[number].hold(key, record(version(f"a{at + 1}", key=key)))
    for side in sides.sides.values():
        side.proving.doubt([P])
    for a, b in ((1, 2), (1, 3), (2, 3)):
        sides.link(a, b)
    sides.run(30)
    for side in sides.sides.values():
        assert side.proving.is_whole
        assert side.records.keys() == set(keys)


def test_an_exchange_that_began_before_the_doubt_neither_proves_nor_is_taken_over() -> None:
    sides = linked(2)
    fill(sides)
    sides[1].hold(keys_of(0, 31)[-1], record(version("b1", key=keys_of(0, 31)[-1])))
    sides.run(2.5)
    assert sides[1].sweeps.runs.under_way == 1
    sides[1].lose(P)
    sides[2].floors.add(P, dot("c1"))
    assert sides[1].sweeps.progress.line(2, P).completed == 0
    sides.run(0.8)  # the pause is over, the next sweep not yet due
    assert sides[1].sweeps.progress.line(2, P).broken_off == 1


def test_a_topology_that_changes_begins_all_anew() -> None:
    sides = linked()
    fill(sides)
    sides[1].hold(keys_of(0, 31)[-1], record(version("b1", key=keys_of(0, 31)[-1])))
    sides.run(2.5)
    assert sides[1].sweeps.runs.under_way > 0
    sides[1].sweeps.follow(Instant(sides.now))
    assert sides[1].sweeps.runs.under_way == 0
    sides.run(5)
    assert sides[1].records == sides[2].records == sides[3].records


def test_what_a_peer_has_seen_is_heard_also_where_an_exchange_is_never_complete() -> None:
    """Else one key that never stands still would keep all tombstones of its partition."""
    sides = linked(2)
    fill(sides)
    key = keys_of(0, 31)[-1]
    counter = iter(range(1, 100_000))
    sides[1].hold(key, record(version(f"b{next(counter)}", key=key)))

    def write() -> None:
        sides[1].hold(key, record(version(f"b{next(counter)}", key=key)))

    sides.on_turn = write
    sides.run(8)
    assert sides[1].sweeps.progress.line(2, P).completed == 0
    assert sides[1].heard[2, P].report == sides[2].floors.report(P)


# ---- answers ------------------------------------------------------------------------------------


class Asking:
    """Node 1, which compares 64 partitions with node 2; what it asks is answered by hand."""

    def __init__(self) -> None:
        topology = three_owners(nodes=2, bits=6)
        self.side = Side(1, topology, Limits())
        holdings = self.side.holdings._replace(trees=Trees(6, {"default": 3}))
        self.sweeps = Sweeps(holdings, self.side.mender, Limits(), lambda *_: None)
        self.now = Instant(0)
        self.hints = 0
        self.sweeps.hints_for = lambda _: self.hints
        self.sweeps.on_up(2, self.now)
        self.sweeps.kick(self.now)

    def asks_at_next_wake(self) -> list[AskRoots]:
        wake = self.sweeps.next_wake()
        assert wake is not None
        self.now = wake
        return self.asks()

    def asks(self) -> list[AskRoots]:
        out = Outbox()
        self.sweeps.on_time(self.now, out)
        return [each for each in out.held_peers.get(2, []) if isinstance(each, AskRoots)]

    def tell(self, ask: AskRoots, *answers: RootAnswer) -> Outbox:
        out = Outbox()
        self.sweeps.on_tell(2, TellRoots(ask.id, answers), self.now, out)
        return out


def answer(
    verdict: Verdict = Verdict.SAME, partition: Partition = P, report: bytes = b""
) -> RootAnswer:
    return RootAnswer(partition, verdict, is_proven=True, report=report)


def test_a_sweep_of_more_partitions_than_go_at_once_goes_on_without_a_pause() -> None:
    asking = Asking()
    (first,) = asking.asks()
    assert asking.asks() == []  # one at a time
    asking.tell(first)
    (second,) = asking.asks()
    asking.tell(second)
    assert asking.asks() == []
    partitions = [line.partition for ask in (first, second) for line in ask.lines]
    assert partitions == list(range(64))


def test_answers_of_partitions_that_were_not_asked_for_are_ignored() -> None:
    asking = Asking()
    (ask,) = asking.asks()
    asking.tell(ask, answer(partition=Partition(63)), answer(), answer())
    told = {partition: line.completed for _, partition, line in asking.sweeps.progress}
    assert told == {P: 1}


def test_what_came_into_doubt_since_it_was_asked_about_is_not_completed() -> None:
    asking = Asking()
    (ask,) = asking.asks()
    asking.side.proving.doubt([P])
    asking.tell(ask, answer())
    assert asking.sweeps.progress.line(2, P).completed == 0
    assert not asking.side.proving.is_proven(P)


def test_a_report_that_cannot_be_is_no_completion_and_changes_nothing() -> None:
    asking = Asking()
    (ask,) = asking.asks()
    out = asking.tell(ask, answer(Verdict.FLOORS, report=b"nonsense"))
    line = asking.sweeps.progress.line(2, P)
    assert (line.completed, line.refused) == (0, 1)
    assert asking.side.floors.report(P) == b""
    assert out.held_peers == {}


# ---- hints first --------------------------------------------------------------------------------


def returned(*, hints: int) -> Asking:
    """Return node 1 two seconds after node 2 came back, for which it keeps hints."""
    asking = Asking()
    asking.hints = hints
    asking.sweeps.on_down(2)
    asking.sweeps.on_up(2, asking.now)
    assert asking.asks() == []
    return asking


def test_while_a_peer_gets_its_hints_nothing_is_compared_with_it() -> None:
    asking = returned(hints=100)
    for left in (100, 60, 1):
        asking.hints = left
        assert asking.asks_at_next_wake() == []
    asking.hints = 0
    assert len(asking.asks_at_next_wake()) == 1
    assert asking.now == 4 * 2_000_000


def test_hints_that_do_not_leave_hold_a_comparison_up_once() -> None:
    asking = returned(hints=100)
    assert asking.asks_at_next_wake() == []
    assert len(asking.asks_at_next_wake()) == 1


def test_who_asks_for_a_comparison_now_waits_for_no_hints() -> None:
    asking = returned(hints=100)
    asking.sweeps.kick(asking.now)
    assert len(asking.asks()) == 1


def test_a_node_in_doubt_waits_for_no_hints() -> None:
    asking = returned(hints=100)
    asking.side.proving.doubt([P])
    assert len(asking.asks_at_next_wake()) == 1
