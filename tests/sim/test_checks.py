"""Each invariant's check fires on a planted violation, by its own name, and tells the story.

What is planted is told to the watch of a cluster that is sound otherwise: a store that is about to
hold something, a message, an answer, what a client heard. Nothing is patched in the store's code
here; that is what mutants do (tests/sim/mutants.py).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.conflict_log import encode_entry, entry_of
from kvnode.core.context import seal_context
from kvnode.core.conversations import Fence, Prune
from kvnode.core.hints import Hint, encode_hint, hint_key
from kvnode.core.keys import StorageKey, encode_key
from kvnode.core.messages import (
    ClientGet,
    ClientPut,
    GetResult,
    Instant,
    PutResult,
    ReplicaWrite,
    WriteKind,
)
from kvnode.core.pruning import digest
from kvnode.core.record import encode
from kvnode.core.topology import Keyspace, Resolve
from kvnode.core.versions import NOTHING_SEEN, Context, Dot, Record, Vote
from tests.sim.checks import NOT_APPLIED, OK, Read, Write
from tests.sim.cluster import CLUSTER_KEY, Cluster
from tests.sim.invariants import check_bounds, check_full, check_kept, check_phase
from tests.sim.story import Broken
from tests.unit.core.builders import record, stamp, tombstone, version, write_id

STRICT = Keyspace(name="default", sloppy=False)
SLOPPY = Keyspace(name="default")
SIBLINGS = Keyspace(name="default", sloppy=False, resolve=Resolve.SIBLINGS)
NAME = encode_key("default", b"k")


class World:
    """A sound cluster, and what is told of it to its watch."""

    def __init__(self, seed: int, keyspace: Keyspace = STRICT) -> None:
        self.cluster = Cluster(seed, keyspace=keyspace)
        self.cluster.run(2_000_000)
        self.watch = self.cluster.watch
        self.owners = self.cluster.owners(NAME)
        self._requests = 0

    def stores(self, node: int, *changes: tuple[Family, bytes, bytes | None]) -> None:
        """Have a node store something, durably."""
        batch = WriteBatch()
        for family, name, data in changes:
            if data is None:
                batch.delete(family, name)
            else:
                batch.put(family, name, data)
        disk = self.cluster.hosts[node].disk
        self.watch.on_write(node, disk, batch)
        disk.write(batch)
        disk.flush()
        self.watch.on_sync(node)

    def holds(self, node: int, state: Record | None) -> None:
        """Have an owner store this record; None: remove what it holds."""
        data = None if state is None else encode(NAME, state)
        self.stores(node, (Family.RECORDS, NAME, data))

    def hints(self, node: int, owner: int, state: Record | None) -> None:
        """Have a stand-in keep this for an owner; None: delete what it keeps."""
        value = None if state is None else encode_hint(Hint(0, 2, encode(NAME, state)))
        self.stores(node, (Family.HINTS, hint_key(owner, NAME), value))

    def writes(
        self,
        name: str,
        *,
        deletes: bool = False,
        seen: Context = NOTHING_SEEN,
        is_explicit: bool = False,
        ms: int = 0,
        expires_ms: int = 0,
        lasts_us: int = 1_000,
        outcome: str = OK,
        at: tuple[int, ...] | None = None,
        client: int | None = None,
    ) -> Write:
        """Have a client write the version of that name (see `builders.version`), and some owners
        (all) hold it; by default its caller hears `ok`."""
        now_us = self.cluster.now_us
        value = None if deletes else name.encode()
        write = Write(NAME, value, is_explicit, seen, now_us, [write_id(name)], [stamp(ms)])
        write.client = client
        self.watch.began(write)
        made = (tombstone if deletes else version)(
            name, ms=ms, key=NAME, is_explicit=is_explicit, expires_ms=expires_ms
        )
        for node in self.owners if at is None else at:
            self.holds(node, record(made, seen=_over(seen, made.dot)))
        self.cluster.run(lasts_us)
        write.outcome, write.ended_us = outcome, self.cluster.now_us
        write.acked_dot = made.dot
        self.watch.ended(write)
        self.cluster.run(1_000)
        return write

    def reads(
        self,
        value: bytes | None,
        *,
        seen: Context,
        told: tuple[bytes | None, ...] = (),
        client: int | None = None,
    ) -> None:
        """Have a client read this."""
        read = Read(NAME, self.cluster.now_us, OK, value, seen, frozenset((value, *told)))
        read.client = client
        self.watch.began(read)
        self.cluster.run(1_000)
        self.watch.ended(read)

    def is_told_ok(self, name: str, seen: Context, *, by: tuple[int, ...] = ()) -> None:
        """Have a node tell a client that its write of that name is ok, by whom (two owners)."""
        self._requests += 1
        put = ClientPut(
            self._requests, NAME, STRICT, 2, Instant(1 << 60), NOTHING_SEEN, False, False,
            name.encode(), write_id(name), stamp(), 0,
        )  # fmt: skip
        sealed = seal_context(CLUSTER_KEY, NAME, seen)
        self.watch.on_request(self.owners[0], 1, put)
        acked = by or self.owners[:2]
        self.watch.on_answer(self.owners[0], 1, PutResult(put.id, sealed, acked, 0))

    def is_shown(self, value: bytes, seen: Context) -> None:
        """Have a node show a value to a client."""
        self._requests += 1
        get = ClientGet(self._requests, NAME, STRICT, 2, Instant(1 << 60), NOTHING_SEEN, b"", False)
        sealed = seal_context(CLUSTER_KEY, NAME, seen)
        self.watch.on_request(self.owners[0], 1, get)
        self.watch.on_answer(self.owners[0], 1, GetResult(get.id, value, sealed, 0, 0, None))


def _over(seen: Context, dot: Dot) -> Context:
    vector = dict(seen.vector)
    vector[dot.actor] = max(dot.counter, vector.get(dot.actor, 0))
    return Context(vector, seen.dots)


def ctx(*dots: str) -> Context:
    """Return the context up to these dots."""
    return record(*(version(name, key=NAME) for name in dots)).context


# ---- what is planted ---------------------------------------------------------------------------


def a_dot_names_two_payloads(world: World) -> None:
    a, b, _ = world.owners
    world.holds(a, record(version("a1", b"x", key=NAME)))
    world.holds(b, record(version("a1", b"y", key=NAME)))


def a_dot_names_writes_of_two_keys(world: World) -> None:
    world.holds(world.owners[0], record(version("a1", key=NAME)))
    other = _neighbour(world.cluster)
    data = encode(other, record(version("a1", key=other)))
    world.stores(world.owners[0], (Family.RECORDS, other, data))


def a_record_is_out_of_order(world: World) -> None:
    one = version("a1", key=NAME)
    world.holds(world.owners[0], record(one, seen=ctx("b1")))


def a_context_shrinks(world: World) -> None:
    world.holds(world.owners[0], record(version("b1", key=NAME), seen=ctx("a9", "b1")))
    world.holds(world.owners[0], record(version("b2", ms=1, key=NAME), seen=ctx("b2")))


def a_superseded_version_comes_back(world: World) -> None:
    world.holds(world.owners[0], record(version("a2", ms=1, key=NAME)))
    both = record(version("a1", key=NAME), version("a2", ms=1, key=NAME))
    world.holds(world.owners[0], both)


def a_sibling_is_dropped(world: World) -> None:
    world.holds(world.owners[0], record(version("a1", ms=5, key=NAME)))
    late = version("b1", ms=1, key=NAME)
    world.holds(world.owners[0], record(late, seen=ctx("a1", "b1")))


def a_loser_leaves_with_one_log(world: World) -> None:
    lost = version("a1", ms=1, key=NAME, is_explicit=True)
    won = version("b1", ms=9, key=NAME, is_explicit=True)
    both = record(lost, won)
    entry = entry_of(both, NAME, time_ms=1, winner=won.dot, loser=lost.dot, rule="a test")
    world.holds(world.owners[0], both)
    world.stores(world.owners[0], (Family.CONFLICT_LOG, *encode_entry(entry)))
    world.holds(world.owners[0], record(won, seen=both.context))


def a_record_is_pruned_that_was_not_told_of(world: World) -> None:
    lost = version("a1", ms=1, key=NAME, is_explicit=True)
    won = version("b1", ms=9, key=NAME, is_explicit=True)
    both, node = record(lost, won), world.owners[0]
    world.holds(node, both)
    fence = Fence(1, 1, digest(b"another record"))
    world.watch.on_message(node, node, Prune(1, NAME, fence, (lost.dot,)))
    world.holds(node, record(won, seen=both.context))


def a_live_record_is_removed(world: World) -> None:
    world.holds(world.owners[0], record(version("a1", key=NAME)))
    _raise_floors(world, "a1")
    world.holds(world.owners[0], None)


def a_tombstone_is_reaped_at_once(world: World) -> None:
    world.holds(world.owners[0], record(tombstone("a1", key=NAME)))
    _raise_floors(world, "a1", at=world.owners[:1])
    world.holds(world.owners[0], None)


def a_removed_record_is_unknown_to_the_floors(world: World) -> None:
    world.holds(world.owners[0], record(tombstone("a1", key=NAME)))
    world.holds(world.owners[0], None)


def a_vote_appears_by_repair(world: World) -> None:
    one = record(version("a1", key=NAME), votes=((world.owners[0], "a1"),))
    world.watch.steps.offer(world.owners[1], NAME, Dot(1, 1))
    world.holds(world.owners[0], one)


def a_vote_is_gone(world: World) -> None:
    a = world.owners[0]
    world.watch.steps.offer(a, NAME, Dot(1, 1))
    one = record(version("a1", key=NAME))
    world.holds(a, one._replace(votes=(Vote(a, Dot(1, 1)),)))
    world.holds(a, one)


def a_hint_is_deleted_too_early(world: World) -> None:
    stand_in = next(node for node in world.cluster.hosts if node not in world.owners)
    world.hints(stand_in, world.owners[0], record(version("a1", key=NAME)))
    world.hints(stand_in, world.owners[0], None)


def a_hint_loses_a_sibling(world: World) -> None:
    stand_in = next(node for node in world.cluster.hosts if node not in world.owners)
    world.hints(stand_in, world.owners[0], record(version("a1", ms=5, key=NAME)))
    late = record(version("b1", ms=1, key=NAME), seen=ctx("a1", "b1"))
    world.hints(stand_in, world.owners[0], late)


def what_could_not_be_read_is_written_over(world: World) -> None:
    world.holds(world.owners[0], record(version("a1", key=NAME)))
    world.cluster.hosts[world.owners[0]].disk.unreadable(Family.RECORDS, NAME)
    world.holds(world.owners[0], record(version("a2", ms=1, key=NAME)))


def ok_before_the_sync(world: World) -> None:
    world.writes("a1", at=world.owners[:1])
    batch = WriteBatch()
    batch.put(Family.RECORDS, NAME, encode(NAME, record(version("a1", key=NAME))))
    world.watch.on_write(world.owners[1], world.cluster.hosts[world.owners[1]].disk, batch)
    world.is_told_ok("a1", ctx("a1"))


def a_hint_counts_in_a_strict_keyspace(world: World) -> None:
    world.writes("a1", at=world.owners[:1])
    stand_in = next(node for node in world.cluster.hosts if node not in world.owners)
    world.hints(stand_in, world.owners[1], record(version("a1", key=NAME)))
    world.is_told_ok("a1", ctx("a1"))


def an_owner_and_its_stand_in_count_as_two(world: World) -> None:
    world.writes("a1")  # also at the third owner, by luck
    first, second, _ = world.owners
    stand_in = next(node for node in world.cluster.hosts if node not in world.owners)
    for target, slot in ((second, 0), (stand_in, second)):
        data = encode(NAME, record(version("a1", key=NAME)))
        write = ReplicaWrite(7, NAME, data, Instant(1 << 60), WriteKind.WRITE, 0, slot)
        world.watch.on_message(first, target, write)
    world.is_told_ok("a1", ctx("a1"), by=(second, stand_in))


def shown_before_it_is_durable(world: World) -> None:
    world.writes("a1", at=(), outcome="uncertain")
    batch = WriteBatch()
    batch.put(Family.RECORDS, NAME, encode(NAME, record(version("a1", key=NAME))))
    world.watch.on_write(world.owners[1], world.cluster.hosts[world.owners[1]].disk, batch)
    world.is_shown(b"a1", ctx("a1"))


def what_was_not_applied_was_stored(world: World) -> None:
    world.writes("a1", outcome=NOT_APPLIED)


def what_was_not_applied_is_stored_later(world: World) -> None:
    world.writes("a1", outcome=NOT_APPLIED, at=())
    world.holds(world.owners[0], record(version("a1", key=NAME)))


def what_was_not_applied_is_read(world: World) -> None:
    world.writes("a1", outcome=NOT_APPLIED, at=())
    world.reads(b"a1", seen=ctx("a1"))


def what_nobody_wrote_is_read(world: World) -> None:
    world.reads(b"surprise", seen=NOTHING_SEEN)


def an_older_write_is_read(world: World) -> None:
    world.writes("a1")
    world.writes("a2", ms=1)
    world.reads(b"a1", seen=ctx("a2"))


def a_session_reads_what_it_replaced(world: World) -> None:
    world.writes("a1", client=1)
    world.writes("a2", ms=1, seen=ctx("a1"), client=1)
    world.reads(b"a1", seen=ctx("a2"), client=1)


def an_absence_is_read_after_a_write(world: World) -> None:
    world.writes("a1")
    world.reads(None, seen=ctx("a1"))


def a_deleted_value_is_read(world: World) -> None:
    world.writes("a1")
    world.writes("a2", deletes=True, seen=ctx("a1"), ms=1)
    world.reads(b"a1", seen=ctx("a2"))


def a_read_does_not_cover(world: World) -> None:
    world.writes("a1", is_explicit=True)
    world.writes("b1", is_explicit=True, at=())
    world.reads(b"b1", seen=ctx("b1"))


def a_rival_is_not_told_of(world: World) -> None:
    world.writes("a1", is_explicit=True)
    world.writes("b1", is_explicit=True, seen=NOTHING_SEEN, at=())
    both = record(version("a1", key=NAME, is_explicit=True))
    for node in world.owners:
        world.holds(node, both)
    world.reads(b"b1", seen=ctx("a1", "b1"))


def a_value_outlives_its_expiry(world: World) -> None:
    now_ms = world.cluster.wall_ms
    world.writes("a1", expires_ms=now_ms + 100)
    world.watch._expiry[write_id("a1")] = now_ms + 100
    world.cluster.run(1_000_000)
    world.reads(b"a1", seen=ctx("a1"))


def an_acknowledged_write_is_nowhere(world: World) -> None:
    world.writes("a1", at=())
    check_kept(world.cluster, NAME)


def an_heir_is_nowhere(world: World) -> None:
    world.writes("a1")
    world.writes("a2", ms=1, outcome="uncertain", at=world.owners[:1])
    for node in world.owners:
        disk = world.cluster.hosts[node].disk
        batch = WriteBatch()
        batch.delete(Family.RECORDS, NAME)
        disk.write(batch)
        life = world.cluster.hosts[node].life
        assert life is not None
        for counter in (1, 2):
            life.replica.floors.add(life.replica.trees.partition_of(NAME), Dot(1, counter))
    check_kept(world.cluster, NAME)


def owners_differ(world: World) -> None:
    world.writes("a1", at=world.owners[:2])
    check_kept(world.cluster, NAME)


def a_covered_version_is_alive(world: World) -> None:
    world.writes("a1")
    for node in world.owners:
        world.holds(node, record(version("a1", key=NAME), seen=ctx("a1", "b1")))
    world.writes("b1", deletes=True, is_explicit=True, seen=ctx("a1"), at=())
    check_kept(world.cluster, NAME)


def a_floor_passes_what_lives(world: World) -> None:
    world.writes("a1", at=world.owners[:1])
    _raise_floors(world, "a1", at=world.owners[1:])
    check_phase(world.cluster)


def a_tree_is_another(world: World) -> None:
    for node in world.owners:
        life = world.cluster.hosts[node].life
        assert life is not None
        life.replica.trees.note(NAME, None, encode(NAME, record(version("a1", key=NAME))))
    check_full(world.cluster)


def a_doubt_stays(world: World) -> None:
    life = world.cluster.hosts[1].life
    assert life is not None
    life.replica.proving.doubt(life.replica.proving.owned())
    check_full(world.cluster)


def a_queue_is_too_long(world: World) -> None:
    life = world.cluster.hosts[1].life
    assert life is not None
    life.replica.conflicts.bytes = life.limits.conflict_log_bytes + 1
    check_bounds(world.cluster)


def conflicts_are_miscounted(world: World) -> None:
    life = world.cluster.hosts[1].life
    assert life is not None
    life.replica.conflicts.open = 7
    check_full(world.cluster)


Plant = Callable[[World], None]
PLANTED: tuple[tuple[Plant, str], ...] = (
    (a_dot_names_two_payloads, "3-one-payload-a-dot"),
    (a_dot_names_writes_of_two_keys, "3-one-payload-a-dot"),
    (a_record_is_out_of_order, "3-records-are-in-order"),
    (a_context_shrinks, "4-seen-never-shrinks"),
    (a_superseded_version_comes_back, "4-superseded-stays-so"),
    (a_sibling_is_dropped, "1-nothing-vanishes"),
    (a_loser_leaves_with_one_log, "1-logged-before-pruned"),
    (a_record_is_pruned_that_was_not_told_of, "1-pruned-as-told"),
    (a_live_record_is_removed, "1-nothing-vanishes"),
    (a_tombstone_is_reaped_at_once, "2-reaped-with-proof"),
    (a_removed_record_is_unknown_to_the_floors, "4-seen-never-shrinks"),
    (a_vote_appears_by_repair, "5-votes-are-facts"),
    (a_vote_is_gone, "5-votes-are-facts"),
    (a_hint_is_deleted_too_early, "1-hint-kept"),
    (a_hint_loses_a_sibling, "1-nothing-vanishes"),
    (what_could_not_be_read_is_written_over, "1-error-is-not-absence"),
    (ok_before_the_sync, "1-ok-is-durable"),
    (a_hint_counts_in_a_strict_keyspace, "1-ok-is-durable"),
    (an_owner_and_its_stand_in_count_as_two, "1-a-slot-counts-once"),
    (shown_before_it_is_durable, "5-read-is-durable"),
    (what_was_not_applied_was_stored, "6-not-applied-unseen"),
    (what_was_not_applied_is_stored_later, "6-not-applied-unseen"),
    (what_was_not_applied_is_read, "6-not-applied-unseen"),
    (what_nobody_wrote_is_read, "5-read-was-written"),
    (an_older_write_is_read, "5-read-is-current"),
    (a_session_reads_what_it_replaced, "5-session-reads-its-own"),
    (an_absence_is_read_after_a_write, "5-read-is-current"),
    (a_deleted_value_is_read, "2-deleted-stays-deleted"),
    (a_read_does_not_cover, "5-read-covers"),
    (a_rival_is_not_told_of, "5-read-is-current"),
    (a_value_outlives_its_expiry, "5-expired-is-gone"),
    (an_acknowledged_write_is_nowhere, "1-acknowledged-kept"),
    (an_heir_is_nowhere, "1-acknowledged-kept"),
    (owners_differ, "8-owners-equal"),
    (a_covered_version_is_alive, "2-deleted-stays-deleted"),
    (a_floor_passes_what_lives, "4-floor-is-honest"),
    (a_tree_is_another, "8-trees-are-true"),
    (a_doubt_stays, "8-owners-equal"),
    (a_queue_is_too_long, "9-within-bounds"),
    (conflicts_are_miscounted, "9-counts-are-true"),
)


def _raise_floors(world: World, name: str, *, at: tuple[int, ...] | None = None) -> None:
    for node in world.owners if at is None else at:
        life = world.cluster.hosts[node].life
        assert life is not None
        partition = life.replica.trees.partition_of(NAME)
        life.replica.floors.add(partition, version(name, key=NAME).dot)


def _neighbour(cluster: Cluster) -> StorageKey:
    """Return another key of the same partition."""
    bits = 64 - cluster.topology.partition_bits
    names = (encode_key("default", b"%d" % number) for number in range(1_000))
    place = int.from_bytes(NAME[:8], "big") >> bits
    return next(name for name in names if int.from_bytes(name[:8], "big") >> bits == place)


@pytest.mark.parametrize(("plant", "name"), PLANTED, ids=lambda each: getattr(each, "__name__", ""))
def test_what_is_planted_is_found_by_its_name(plant: Plant, name: str, seed: int) -> None:
    with pytest.raises(Broken) as found:
        plant(World(seed))
    assert found.value.invariant == name, str(found.value)
    assert str(seed) in str(found.value)


def test_a_sound_history_breaks_nothing(seed: int) -> None:
    world = World(seed)
    world.writes("a1")
    world.reads(b"a1", seen=ctx("a1"))
    world.writes("a2", seen=ctx("a1"), ms=1)
    world.is_told_ok("a2", ctx("a2"))
    world.is_shown(b"a2", ctx("a2"))
    world.writes("a3", deletes=True, seen=ctx("a2"), ms=2)
    world.reads(None, seen=ctx("a3"))
    check_kept(world.cluster, NAME)
    check_phase(world.cluster)


def test_a_sloppy_keyspace_may_miss_what_stand_ins_hold_until_all_is_healed(seed: int) -> None:
    world = World(seed, SLOPPY)
    world.writes("a1")
    world.writes("a2", ms=1)
    world.reads(b"a1", seen=ctx("a1"))
    world.watch.healed_us = world.cluster.now_us
    with pytest.raises(Broken, match="5-read-is-current"):
        world.reads(b"a1", seen=ctx("a1"))


def test_a_put_that_was_replaced_at_stand_ins_binds_no_read(seed: int) -> None:
    world = World(seed, SLOPPY)
    world.writes("a1")
    world.writes("a2", ms=1)
    heir = Write(NAME, b"a3", True, ctx("a2"), world.cluster.now_us, [write_id("a3")], [1])
    world.watch.began(heir)
    world.watch.healed_us = world.cluster.now_us
    world.reads(b"a1", seen=ctx("a1"))


def test_siblings_are_all_told_of(seed: int) -> None:
    world = World(seed, SIBLINGS)
    world.writes("a1", is_explicit=True)
    rival = version("b1", key=NAME, is_explicit=True)
    both = record(version("a1", key=NAME, is_explicit=True), rival)
    write = Write(NAME, b"b1", True, NOTHING_SEEN, world.cluster.now_us, [write_id("b1")], [1])
    world.watch.began(write)
    for node in world.owners:
        world.holds(node, both)
    world.cluster.run(1_000)
    write.outcome, write.ended_us = OK, world.cluster.now_us
    world.watch.ended(write)
    world.cluster.run(1_000)
    world.reads(b"b1", seen=both.context, told=(b"a1",))
    with pytest.raises(Broken, match=r"5-read-is-current.*b'a1' was acknowledged"):
        world.reads(b"b1", seen=both.context)


def test_a_story_tells_every_event_in_order(seed: int) -> None:
    world = World(seed)
    world.writes("a1")
    world.holds(world.owners[0], record(version("a2", ms=1, key=NAME)))
    lines = world.cluster.stories.tell(NAME).splitlines()
    assert [line.split()[2] for line in lines] == ["store"] * 4
    assert "0000:1=b'a1'" in lines[0] and "0000:2=b'a2'" in lines[-1]


def test_a_long_story_says_what_it_leaves_out(seed: int) -> None:
    world = World(seed)
    for _ in range(500):
        world.cluster.stories.note(NAME, 1, "event", ("again",))
    assert world.cluster.stories.tell(NAME).startswith("100 earlier events are left out\n")
