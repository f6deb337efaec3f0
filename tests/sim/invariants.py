"""What must hold of a whole cluster at the end of a phase.

What it decides: which state is a violation.

    after any phase       7-order-of-repair, 4-floor-is-honest, 9-within-bounds
    of the healed core    8-core-is-equal
    once all is healed    1-acknowledged-kept, 2-deleted-stays-deleted, 8-owners-equal,
                          8-trees-are-true, 8-nothing-waits, 9-counts-are-true

That a second full read of each key answers the same and mends nothing (7, 8) is asked by reading,
which changes things: tests/sim/run.py does that, and then `check_full`.
Laws: nothing here changes what happens. Source: design, section 7.
Its tests are tests/sim/test_checks.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from itertools import combinations, permutations
from typing import TYPE_CHECKING

from kvnode.core.batch import Family
from kvnode.core.bounds import OWN_WRITES_MAX, SETTLING_KEYS_MAX
from kvnode.core.keys import Partition, StorageKey
from kvnode.core.messages import NodeNumber
from kvnode.core.node import Node
from kvnode.core.record import DamagedRecord, decode
from kvnode.core.resolve import decide
from kvnode.core.versions import EMPTY, Dot, Record, covers, is_same_state, sync
from tests.sim.history import Write
from tests.sim.stores import Fates, one_dot
from tests.sim.story import Broken, brief_record, brief_value, brief_version

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster

_ORDERS = 24
"""Orders of repair that are tried for one key: all of them for up to four owners."""


def check_phase(cluster: Cluster) -> None:
    """Check what holds at every instant, in full."""
    check_bounds(cluster)
    for key in cluster.watch.all_keys():
        states = [state for _, state in states_of(cluster, key)]
        if len(states) > 1 and any(state != states[0] for state in states):
            _check_orders(cluster, key, states)
        _check_floors(cluster, key)


def check_core(cluster: Cluster, nodes: Collection[NodeNumber]) -> None:
    """Check that those of these nodes that own a partition hold the same in it, if proven."""
    for told in differences(cluster, nodes):
        raise Broken("8-core-is-equal", f"seed {cluster.seed}: {told}")


def check_full(cluster: Cluster) -> None:
    """Check everything, of a cluster in which all nodes are well and have been for long enough."""
    for told in differences(cluster, cluster.hosts):
        raise Broken("8-owners-equal", f"seed {cluster.seed}: {told}")
    check_phase(cluster)
    for key in cluster.watch.all_keys():
        check_kept(cluster, key)
    for host in cluster.hosts.values():
        _named(cluster, "8-trees-are-true", host.check_trees)
    if told := busy(cluster):
        raise Broken("8-nothing-waits", f"seed {cluster.seed}: {told}")
    if told := miscounts(cluster):
        raise Broken("9-counts-are-true", f"seed {cluster.seed}: {told}")


def differences(cluster: Cluster, nodes: Collection[NodeNumber]) -> Iterator[str]:
    """Yield what keeps these nodes from being equal: doubts, and partitions that differ."""
    for partition, row in enumerate(cluster.topology.owner_numbers):
        place = Partition(partition)
        for (at, a), (beside, b) in combinations(enumerate(row), 2):
            least_n = max(at, beside) + 1
            if a not in nodes or b not in nodes:
                continue
            here, there = cluster.hosts[a].life, cluster.hosts[b].life
            if here is None or there is None:
                yield f"node {a if here is None else b} is dead"
                return
            trees = here.replica.trees, there.replica.trees
            if trees[0].root(place, least_n) != trees[1].root(place, least_n):
                yield f"nodes {a} and {b} differ in partition {partition}"
    for number in nodes if len(nodes) == len(cluster.hosts) else ():
        life = cluster.hosts[number].life
        if life is None or not life.replica.is_proven:
            yield f"node {number} is dead or in doubt"


def miscounts(cluster: Cluster) -> str:
    """Return which node counts conflicts wrongly; empty if none does. Where a damaged record was
    replaced nobody can tell whether it was open: settling counts anew now and then."""
    for host in cluster.hosts.values():
        if host.life is None:
            continue
        counted, fresh = host.life.replica.conflicts, host.conflict_log()
        here = (counted.open, counted.entries, counted.bytes)
        there = (fresh.open, fresh.entries, fresh.bytes)
        if here != there:
            told = f"counts (open, entries, bytes) {here} of conflicts, there are {there}"
            return f"node {host.number} {told}"
    return ""


def check_bounds(cluster: Cluster) -> None:
    """Invariant 9: every queue keeps within its bound."""
    for host in cluster.hosts.values():
        if host.life is None:
            continue
        for what, size, bound in _sizes(host.life, len(cluster.hosts)):
            if size > bound:
                told = f"node {host.number} holds {size:,} {what}, the bound is {bound:,}"
                raise Broken("9-within-bounds", f"seed {cluster.seed}: {told}")
        _named(cluster, "9-within-bounds", host.life.replica.floors.check)
        _named(cluster, "9-counts-are-true", host.life.hints.check)


def _sizes(life: Node, nodes: int) -> Iterator[tuple[str, int, int]]:
    limits, upkeep = life.limits, life.upkeep
    in_hints = sum(ledger.bytes for ledger in life.hints.ledgers.values())
    yield "operations", life.coordinator.in_flight, limits.operations_in_flight
    yield "bytes of hints", in_hints, limits.hint_bytes
    yield "hints under way", life.handoff.under_way, limits.hint_window * nodes
    yield "keys that are mended", len(upkeep.mender._jobs), limits.exchange_window
    yield "conflicts that are settled", upkeep.settling.under_way, limits.settle_window
    yield "conflicts watched", len(upkeep.settling._agreed), SETTLING_KEYS_MAX
    yield "own writes", len(life.stand_in._newest_own), OWN_WRITES_MAX
    yield "bytes of the conflict log", life.replica.conflicts.bytes, limits.conflict_log_bytes


# ---- keys ------------------------------------------------------------------------------------


def states_of(cluster: Cluster, key: StorageKey) -> list[tuple[NodeNumber, Record]]:
    """Return what each owner's store holds of a key, as far as it can be read."""
    found = []
    for node in cluster.owners(key):
        (data,) = cluster.hosts[node].engine.multi_get(Family.RECORDS, [key])
        try:
            if data is None:
                found.append((node, EMPTY))
            elif isinstance(data, bytes):
                found.append((node, decode(key, data)))
        except DamagedRecord:
            continue
    return found


def _check_orders(cluster: Cluster, key: StorageKey, states: list[Record]) -> None:
    """Invariant 7: whoever is mended first, the same is left, and the same wins."""
    first: Record | None = None
    keyspace, owners = cluster.keyspace_of(key), cluster.owners(key)
    for order, _ in zip(permutations(states), range(_ORDERS), strict=False):
        joined = EMPTY
        for state in order:
            joined = sync(joined, state)
        if first is None:
            first = joined
        elif joined != first:
            told = f"{brief_record(first)}, or {brief_record(joined)}"
            cluster.watch.fail("7-order-of-repair", key, f"left by the order of repair: {told}")
    assert first is not None
    winner = decide(
        first, owners=owners, unheard=0, now_ms=cluster.wall_ms, resolve=keyspace.resolve
    ).winner
    if first.versions and (winner is None or winner not in first.versions):
        cluster.watch.fail("7-order-of-repair", key, "the winner is none of the survivors")


def _check_floors(cluster: Cluster, key: StorageKey) -> None:
    """Invariant 4: what a floor passes for superseded, and is alive elsewhere, was superseded."""
    watch = cluster.watch
    alive: dict[Dot, bytes] = {}
    states = dict(states_of(cluster, key))
    for state in states.values():
        alive.update((version.dot, version.write_id) for version in state.versions)
    for node, state in states.items():
        host = cluster.hosts[node]
        if host.life is None or host.is_stalled:
            continue
        floors = host.life.replica.floors
        partition = host.life.replica.trees.partition_of(key)
        for dot, write_id in alive.items():
            if covers(state.context, dot) or not floors.has_seen(partition, dot):
                continue
            if not watch.fates.is_gone(write_id):
                told = f"the floor of node {node} passes {dot} for superseded, which nothing did"
                watch.fail("4-floor-is-honest", key, told)


def check_kept(cluster: Cluster, key: StorageKey) -> None:
    """Invariants 1, 2 and 8, for owners that are all equal."""
    watch, states = cluster.watch, states_of(cluster, key)
    joined = states[0][1] if states else EMPTY
    for node, state in states:
        if not is_same_state(joined, state):
            told = f"node {states[0][0]} holds {brief_record(joined)}"
            text = f"{told}, node {node} holds {brief_record(state)}"
            watch.fail("8-owners-equal", key, text)
    history = watch.of(key)
    if history.is_lossy or watch.is_unsafe:
        return
    for version in joined.versions:
        _check_alive(cluster, key, version.write_id, brief_version(version))
    live = {version.write_id for version in joined.versions}
    for write in history.kept:
        _check_known(cluster, write, joined)
        if live.isdisjoint(write.write_ids):
            _check_left(cluster, write, live)


def _check_known(cluster: Cluster, write: Write, joined: Record) -> None:
    """All owners have seen it: by the record's context, or by their floors."""
    watch, key = cluster.watch, write.key
    dots = watch.dots_of(write)
    if not dots and watch.of(key).has_successor(write, dots):
        return  # another write of its turn superseded it before anybody saw it
    for dot in (*dots, *watch.dots_ahead_of(write)):
        if covers(joined.context, dot):
            return
        if all(watch.steps.has_floor_seen(node, key, one_dot(dot)) for node in cluster.owners(key)):
            return
    told = f"{brief_value(write.value)} was acknowledged, and no owner knows of it"
    watch.fail("1-acknowledged-kept", key, told)


def _check_left(cluster: Cluster, write: Write, live: set[bytes]) -> None:
    """It is gone for a reason, and what superseded it is there, or is gone for a reason."""
    watch = cluster.watch
    heirs = [heir for name in write.write_ids for heir in watch.fates.heirs(name)]
    if live.intersection(heirs) or Fates.REAPED in heirs or Fates.SETTLED in heirs:
        return
    ends = [each for each in (*write.write_ids, *heirs) if not watch.fates.is_gone(each)]
    if any(_may_be_superseded(cluster, end) for end in ends):
        return  # nobody saw it leave: within a turn, or where a hint came that was superseded
    told = f"{brief_value(write.value)} was acknowledged, and is gone"
    if not heirs:
        watch.fail("1-acknowledged-kept", write.key, f"{told}: nothing superseded it")
    names = [brief_value(it.value) for h in heirs if (it := watch.writes_by_id.get(h)) is not None]
    text = f"{told}: what superseded it ({', '.join(names)}) is not there either"
    watch.fail("1-acknowledged-kept", write.key, text)


def _may_be_superseded(cluster: Cluster, write_id: bytes) -> bool:
    watch = cluster.watch
    write = watch.writes_by_id.get(write_id)
    return write is not None and watch.of(write.key).has_successor(write, watch.last_dots_of(write))


def _check_alive(cluster: Cluster, key: StorageKey, write_id: bytes, told: str) -> None:
    """Nothing lives that an acknowledged write is known to have superseded."""
    watch = cluster.watch
    write = watch.writes_by_id.get(write_id)
    if write is None:
        return
    history = watch.of(key)
    dots = watch.dots_of(write)
    if history.is_seen_before(dots, len(history.acknowledged)):
        later = next(history.successors(write, dots, len(history.acknowledged)), None)
        is_delete = later is not None and later.value is None
        name = "2-deleted-stays-deleted" if is_delete else "5-superseded-stays-so"
        watch.fail(name, key, f"{told} is alive, and an acknowledged write had seen it")


# ---- nodes -----------------------------------------------------------------------------------


def busy(cluster: Cluster) -> str:
    """Invariants 8 and 9: what a node holds for operations goes back to nothing, again and again.
    Return which one holds something now; empty if none does."""
    for number, host in cluster.hosts.items():
        life = host.life
        if life is None:
            return f"node {number} is dead"
        for what, count in (
            ("operations", life.coordinator.in_flight),
            ("hints under way", life.handoff.under_way),
            ("hints", life.hints.pending),
            # Where the log has no room, open conflicts are looked at for good.
            ("conflicts", 0 if life.replica.conflicts.open else life.upkeep.settling.under_way),
        ):
            if count:
                return f"node {number} holds {count} {what} long after all has healed"
    return ""


def _named(cluster: Cluster, name: str, run_check: Callable[[], None]) -> None:
    try:
        run_check()
    except AssertionError as error:
        raise Broken(name, f"seed {cluster.seed}: {error}") from error
