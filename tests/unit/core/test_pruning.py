"""The owner's part in settling: it acts only on exactly what it told of."""

from __future__ import annotations

from typing import Any

import pytest

from kvnode.core.batch import Family
from kvnode.core.bounds import Limits
from kvnode.core.conversations import AskState, Fence, LogLosers, Prune, TellState
from kvnode.core.keys import encode_key
from kvnode.core.messages import Outbox, Status
from kvnode.core.pruning import digest
from kvnode.core.record import encode
from kvnode.core.versions import check
from tests.support.settlers import Owner, Settlers
from tests.unit.core.builders import KEY, WALL_MS, dot, dots, record, tombstone, version

STATE = record(version("a1"), version("b1", ms=1), version("c1", ms=2), votes=((1, "a1"),))
ASKER = 7


class Owned(Settlers):
    """Asks the first owner, which holds STATE."""

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__(limits or Limits())
        self.hold(STATE)
        self.fence = Fence(1, self.settler.replica.actor, digest(encode(KEY, STATE)))

    @property
    def owner(self) -> Owner:
        return self.settler

    def ask(self, ask: Any, *, wall_ms: int = WALL_MS) -> Any:
        out = self.owner.turn(
            lambda o: self.owner.pruner.on_ask(ASKER, ask, wall_ms, o), wall_ms, ask.key
        )
        assert out.peers == {}, "an answer waits for the log"
        [answer] = out.held_peers[ASKER]
        assert answer.id == ask.id
        return answer

    def state(self, **changes: Any) -> TellState:
        answer = self.ask(AskState(5, KEY, 1, b"")._replace(**changes))
        assert isinstance(answer, TellState)
        return answer

    def log(self, *, wall_ms: int = WALL_MS, **changes: Any) -> bool:
        ask = LogLosers(6, KEY, self.fence, WALL_MS, dot("a1"), dots("b1", "c1"), "a rule")
        done: bool = self.ask(ask._replace(**changes), wall_ms=wall_ms).is_done
        assert done or self.owner.log() == []
        return done

    def prune(self, **changes: Any) -> bool:
        before = self.owner.store.copy()
        done: bool = self.ask(
            Prune(8, KEY, self.fence, dots("b1", "c1"))._replace(**changes)
        ).is_done
        assert done or self.owner.store == before
        return done


def test_it_tells_its_life_and_its_whole_record_votes_included() -> None:
    owned = Owned()
    told = owned.state()
    assert told == (5, True, owned.owner.replica.actor, False, encode(KEY, STATE))


def test_what_the_asker_holds_too_is_not_sent() -> None:
    owned = Owned()
    told = owned.state(digest=owned.fence.digest)
    assert (told.is_known, told.is_same, told.record) == (True, True, b"")


def test_an_absent_record_is_told_as_such() -> None:
    told = Owned().state(key=encode_key("default", b"2"), digest=digest(b"x"))
    assert (told.is_known, told.is_same, told.record) in ((True, False, b""), (False, False, b""))


def test_a_vote_makes_another_digest() -> None:
    voted = STATE._replace(votes=())
    assert digest(encode(KEY, voted)) != digest(encode(KEY, STATE))


def test_in_another_epoch_in_doubt_or_unreadable_it_knows_nothing() -> None:
    owned = Owned()
    assert not owned.state(epoch=2).is_known
    name = (Family.RECORDS, bytes(KEY))
    owned.owner.store[name] = owned.owner.store[name][:-1] + b"?"
    assert not owned.state().is_known
    owned = Owned()
    owned.owner.replica.doubt(owned.owner.replica.proving.owned())
    assert not owned.state().is_known


def test_of_a_keyspace_that_it_does_not_know_it_knows_nothing() -> None:
    assert not Owned().state(key=encode_key("unheard-of", b"k")).is_known


def test_losers_are_logged_with_their_values_and_stay() -> None:
    owned = Owned()
    assert owned.log()
    entries = owned.owner.log()
    assert [entry.loser.versions[0].dot for entry in entries] == list(dots("b1", "c1"))
    assert {(e.winner, e.rule, e.time_ms) for e in entries} == {(dot("a1"), "a rule", WALL_MS)}
    assert owned.owner.held() == STATE


def test_losers_are_pruned_and_stay_covered() -> None:
    owned = Owned()
    assert owned.prune()
    held = owned.owner.held()
    check(held)
    assert (held.versions, held.context) == (STATE.versions[:1], STATE.context)


def test_a_pruned_tombstone_is_a_grave() -> None:
    owned = Owned()
    state = record(tombstone("a2"), version("b2"))
    owned.hold(state._replace(context=record(*STATE.versions, *state.versions).context))
    held = encode(KEY, owned.owner.held())
    fence = owned.fence._replace(digest=digest(held))
    assert owned.prune(fence=fence, losers=dots("b2"))
    assert [key for key, _ in owned.owner.family(Family.GRAVES)] == [KEY]


@pytest.mark.parametrize(
    "broken",
    [Fence(2, 0, b""), Fence(1, 1, b""), Fence(1, 0, b"another record")],
    ids=["epoch", "life", "record"],
)
def test_each_part_of_the_fence_holds(broken: Fence) -> None:
    owned = Owned()
    fence = Fence(
        broken.epoch,
        broken.actor or owned.fence.actor,
        broken.digest or owned.fence.digest,
    )
    assert not owned.log(fence=fence)
    assert not owned.prune(fence=fence)


def test_it_acts_on_nothing_in_doubt() -> None:
    owned = Owned()
    owned.owner.replica.doubt(owned.owner.replica.proving.owned())
    assert not owned.log()
    assert not owned.prune()


def test_losers_that_are_not_held_twice_named_none_or_all_are_refused() -> None:
    for losers in (dots("b1", "b2"), dots("b1", "b1"), (), dots("a1", "b1", "c1")):
        assert not Owned().prune(losers=losers)
    for losers in (dots("b1", "b2"), dots("b1", "b1"), (), dots("a1", "b1")):
        assert not Owned().log(losers=losers)
    assert not Owned().log(winner=dot("d1"))


def test_times_that_would_keep_entries_for_ever_or_not_at_all_are_refused() -> None:
    limits = Limits()
    half_ms = limits.conflict_log_ms // 2
    assert Owned().log(time_ms=WALL_MS + limits.max_skew_ms)
    assert not Owned().log(time_ms=WALL_MS + limits.max_skew_ms + 1)
    assert Owned().log(time_ms=WALL_MS - half_ms)
    assert not Owned().log(time_ms=WALL_MS - half_ms - 1)


def test_a_full_disk_takes_no_entries_and_a_full_log_none() -> None:
    owned = Owned()
    owned.owner.replica.refuses = Status.REFUSED_FULL
    assert not owned.log()
    assert owned.prune()
    assert not Owned(Limits(conflict_log_bytes=100)).log()


def test_an_answer_is_sent_to_who_asked_alone() -> None:
    owned = Owned()
    ask = AskState(5, KEY, 1, b"")
    out = owned.owner.turn(lambda o: owned.owner.pruner.on_ask(3, ask, WALL_MS, o), WALL_MS, KEY)
    assert isinstance(out, Outbox)
    assert list(out.held_peers) == [3]
