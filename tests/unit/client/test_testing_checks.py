"""kvclient.testing.checks on small histories: sound ones, and ones with a planted error."""

from __future__ import annotations

import pytest

from kvclient import errors
from kvclient.testing.checks import Kind, Verdict, check
from kvclient.testing.history import HistoryError, Op, Recorder

STRICT = ("strict",)
KEPT = ("kept",)


class Story:
    """A history, told one operation after the other."""

    def __init__(self, keyspace: str = "default") -> None:
        self.recorder = Recorder()
        self.keyspace = keyspace

    def begin(self, worker: int, f: str, value: str | None = None, context: Op | None = None) -> Op:
        return self.recorder.invoke(
            worker, f, "k", value=value, keyspace=self.keyspace,
            context=None if context is None else context.op,
        )  # fmt: skip

    def put(self, value: str, *, worker: int = 0, context: Op | None = None) -> None:
        self.recorder.ok(self.begin(worker, "put", value, context))

    def unsure(self, value: str | None, *, worker: int = 0, context: Op | None = None) -> None:
        """Put, or delete if there is no value, with an uncertain outcome."""
        op = self.begin(worker, "put" if value else "delete", value, context)
        self.recorder.failed(op, errors.Uncertain("late"))

    def refused(self, value: str, *, worker: int = 0) -> None:
        self.recorder.failed(self.begin(worker, "put", value), errors.Unavailable("no"))

    def delete(self, *, worker: int = 0) -> None:
        self.recorder.ok(self.begin(worker, "delete"))

    def get(self, *values: str, worker: int = 0) -> Op:
        op = self.begin(worker, "get")
        self.recorder.ok(op, values)
        return op

    def final(self, *values: str) -> None:
        """Converge, then read as somebody who has seen nothing."""
        self.recorder.final()
        self.get(*values, worker=99)

    def verdict(self) -> Verdict:
        return check(self.recorder.history, strict=STRICT, siblings=KEPT)

    def kinds(self) -> list[Kind]:
        return [finding.kind for finding in self.verdict().findings]


# --- what is sound --------------------------------------------------------------------------------


@pytest.mark.parametrize("keyspace", ["default", "strict"])
def test_reading_what_was_written_is_sound(keyspace: str) -> None:
    story = Story(keyspace)
    story.get()
    story.put("1")
    story.get("1")
    story.put("2")
    story.delete()
    story.get()
    story.put("3")
    story.final("3")
    assert story.verdict().is_sound


@pytest.mark.parametrize("seen", ["1", "2"])
def test_an_uncertain_write_may_appear_or_not(seen: str) -> None:
    for keyspace in ("default", "strict"):
        story = Story(keyspace)
        story.put("1")
        story.unsure("2")
        story.get(seen, worker=1)
        story.final(seen)
        assert story.kinds() == []


@pytest.mark.parametrize("seen", [(), ("1",)])
def test_an_uncertain_delete_may_have_happened_or_not(seen: tuple[str, ...]) -> None:
    story = Story("strict")
    story.put("1")
    story.unsure(None)
    story.final(*seen)
    assert story.kinds() == []


@pytest.mark.parametrize("seen", ["1", "2"])
def test_of_concurrent_writes_either_may_win(seen: str) -> None:
    story = Story("strict")
    one, two = story.begin(0, "put", "1"), story.begin(1, "put", "2")
    story.recorder.ok(one)
    story.recorder.ok(two)
    story.final(seen)
    assert story.kinds() == []


def test_another_session_may_read_what_is_old_unless_the_keyspace_is_strict() -> None:
    story = Story()
    story.put("1")
    story.put("2")
    story.get("1", worker=1)
    story.get(worker=2)
    assert story.kinds() == []


def test_without_stand_ins_only_a_write_that_has_seen_another_must_win() -> None:
    story = Story()
    story.put("1", worker=0)
    story.put("2", worker=1)  # has not seen it, and may lose the vote
    story.final("1")
    assert story.kinds() == []


def test_an_operation_that_never_ended_is_uncertain() -> None:
    story = Story("strict")
    story.begin(0, "put", "1")
    story.put("2", worker=1)
    story.get("1", worker=2)
    assert story.kinds() == []
    assert story.verdict().ends["none"] == 1


def test_siblings_that_are_all_there_are_sound() -> None:
    story = Story("kept")
    seen = story.get()
    story.put("1", worker=0, context=seen)
    story.put("2", worker=1, context=seen)
    both = story.get("1", "2")
    story.put("3", context=both)
    story.put("4", worker=2, context=seen)
    story.final("3", "4")
    assert story.kinds() == []


def test_what_an_uncertain_delete_covers_need_not_be_there() -> None:
    story = Story("kept")
    story.put("1")
    story.unsure(None)
    story.final()
    assert story.kinds() == []


@pytest.mark.parametrize("keyspace", ["default", "strict", "kept"])
def test_a_read_is_judged_by_what_was_known_when_it_began(keyspace: str) -> None:
    story = Story(keyspace)
    story.put("1")
    story.recorder.final()
    write, read = story.begin(0, "put", "2"), story.begin(99, "get")
    story.recorder.ok(write)
    story.recorder.ok(read, ["1"])
    assert story.kinds() == []


# --- a lost write ---------------------------------------------------------------------------------


def test_an_acknowledged_write_that_is_absent_at_the_end_is_lost() -> None:
    story = Story()
    story.put("1")
    story.final()
    [finding] = story.verdict().findings
    assert (finding.kind, finding.key, finding.because) == (Kind.LOST, "k", 0)
    assert story.verdict().count(Kind.LOST) == 1


def test_a_replaced_value_at_the_end_means_that_its_successor_is_lost() -> None:
    story = Story()
    story.put("1")
    story.put("2")
    story.final("1")
    assert story.kinds() == [Kind.LOST]


def test_a_delete_before_the_write_does_not_excuse_its_loss() -> None:
    story = Story()
    story.put("1")
    story.delete()
    story.put("2")
    story.final()
    assert story.kinds() == [Kind.LOST]


def test_a_delete_that_was_not_applied_does_not_excuse_a_loss() -> None:
    story = Story()
    story.put("1")
    story.recorder.failed(story.begin(0, "delete"), errors.Unavailable("no"))
    story.final()
    assert story.kinds() == [Kind.LOST]


def test_a_causal_successor_that_loses_is_lost() -> None:
    story = Story()
    story.put("1", worker=0)
    seen = story.get("1", worker=1)
    story.put("2", worker=1, context=seen)
    story.final("1")
    assert story.kinds() == [Kind.LOST]


def test_a_missing_sibling_is_lost() -> None:
    story = Story("kept")
    seen = story.get()
    story.put("1", worker=0, context=seen)
    story.put("2", worker=1, context=seen)
    story.final("2")
    assert story.kinds() == [Kind.LOST]


def test_what_was_read_must_not_vanish_though_its_write_was_uncertain() -> None:
    story = Story()
    story.unsure("1")
    story.get("1")
    story.final()
    assert story.kinds() == [Kind.LOST]


def test_a_replaced_sibling_beside_its_successor_is_told_and_nothing_is_lost() -> None:
    story = Story("kept")
    story.put("1")
    seen = story.get("1")
    story.put("2", context=seen)
    story.get("1", "2", worker=5)
    story.final("2", "1")
    assert story.kinds() == [Kind.RESURFACED] * 2
    assert [finding.because for finding in story.verdict().findings] == [0, 0]


def test_a_replaced_sibling_without_its_successor_means_that_this_is_lost() -> None:
    story = Story("kept")
    story.put("1")
    seen = story.get("1")
    story.put("2", context=seen)
    story.put("3", worker=1, context=seen)
    story.final("1", "3")
    assert sorted(story.kinds()) == [Kind.LOST, Kind.RESURFACED]


# --- a zombie -------------------------------------------------------------------------------------


def test_a_deleted_value_at_the_end_is_a_zombie() -> None:
    story = Story()
    story.put("1")
    story.delete()
    story.final("1")
    assert story.kinds() == [Kind.ZOMBIE]


def test_a_value_from_before_a_delete_and_a_rewrite_is_a_zombie() -> None:
    story = Story()
    story.put("1")
    story.delete()
    story.put("2")
    story.get("1")
    assert story.kinds() == [Kind.ZOMBIE]


def test_in_a_strict_keyspace_a_stuck_write_that_shows_up_after_a_delete_is_a_zombie() -> None:
    story = Story("strict")
    story.unsure("1", worker=0)
    story.delete(worker=1)
    story.get("1", worker=2)
    assert story.kinds() == [Kind.ZOMBIE]


# --- a stale read ---------------------------------------------------------------------------------


def test_a_strict_read_of_a_value_replaced_before_it_began_is_stale() -> None:
    story = Story("strict")
    story.put("1", worker=0)
    story.put("2", worker=1)
    story.get("1", worker=2)
    assert story.kinds() == [Kind.STALE]


def test_a_strict_read_that_misses_an_acknowledged_write_is_stale() -> None:
    story = Story("strict")
    story.put("1", worker=0)
    story.get(worker=1)
    assert story.kinds() == [Kind.STALE]


def test_a_strict_read_that_finds_a_delete_from_before_the_write_is_stale() -> None:
    story = Story("strict")
    story.delete(worker=0)
    story.put("1", worker=1)
    story.get(worker=2)
    assert story.kinds() == [Kind.STALE]


def test_a_strict_read_is_judged_by_when_it_began() -> None:
    story = Story("strict")
    story.put("1")
    read = story.begin(1, "get")
    story.put("2")
    story.recorder.ok(read, ["1"])
    assert story.kinds() == []


@pytest.mark.parametrize("seen", [("1",), ()])
def test_a_session_that_does_not_read_its_own_write_is_stale(seen: tuple[str, ...]) -> None:
    story = Story()
    story.put("1")
    story.put("2")
    story.get(*seen)
    assert story.kinds() == [Kind.STALE]


def test_a_session_that_goes_back_is_stale() -> None:
    story = Story()
    story.put("1", worker=0)
    story.put("2", worker=0)
    story.get("2", worker=1)
    story.get("1", worker=1)
    assert story.kinds() == [Kind.STALE]


# --- what was never written -----------------------------------------------------------------------


def test_a_write_that_was_not_applied_must_not_be_seen_even_before_that_was_said() -> None:
    story = Story()
    write = story.begin(0, "put", "1")
    story.get("1", worker=1)
    story.recorder.failed(write, errors.Unavailable("no"))
    assert story.kinds() == [Kind.PHANTOM]


def test_a_value_of_nobody_is_told() -> None:
    story = Story()
    story.get("ghost")
    assert story.kinds() == [Kind.UNKNOWN]


def test_a_value_that_is_written_only_later_is_told() -> None:
    story = Story()
    story.get("1")
    story.put("1")
    assert story.kinds() == [Kind.UNKNOWN]


# --- figures --------------------------------------------------------------------------------------


def test_a_verdict_counts_operations_failures_and_the_longest() -> None:
    recorder = Recorder(now=iter([0.0, 0.0, 0.01, 1.0, 3.5, 4.0, 4.1, 5.0]).__next__)
    recorder.ok(recorder.invoke(0, "put", "a", value="1"))
    recorder.failed(recorder.invoke(0, "put", "a", value="2"), errors.Uncertain("late"))
    recorder.failed(recorder.invoke(0, "get", "b"), errors.Timeout("late"))
    recorder.invoke(0, "get", "b")
    verdict = check(recorder.history)
    assert (verdict.operations, verdict.failed, verdict.worst_ms) == (4, 3, 2_500.0)
    assert verdict.ends == {"ok": 1, "uncertain": 1, "fail": 1, "none": 1}
    assert verdict.errors == {"Uncertain": 1, "Timeout": 1}


def test_nothing_is_sound() -> None:
    verdict = check(Recorder().history)
    assert (verdict.is_sound, verdict.operations, verdict.worst_ms) == (True, 0, 0.0)


def test_writes_that_cannot_be_told_apart_are_refused() -> None:
    story = Story()
    story.put("1")
    story.put("1")
    with pytest.raises(HistoryError, match="same value"):
        story.verdict()


def test_thousands_of_writes_of_one_key_are_judged_one_by_one() -> None:
    story = Story("strict")
    for number in range(3_000):
        story.put(str(number))
        story.get(str(number))
        story.delete()
        story.get()
    story.final()
    assert story.verdict().is_sound
