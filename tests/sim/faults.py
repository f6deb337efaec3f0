"""What can go wrong in a simulated cluster: each kind of fault, how it begins and how it ends.

What it decides: what a fault of a plan does to the world. Faults overlap: what holds at an instant
is the union of those that act then, so that one which ends takes back what it did and no more.
    network   shake clog cut split ring swizzle flap client_cut
    process   crash (power) kill stop pause wipe restore twin epoch
    disk      slow_disk fail_sync full stall flip garble unreadable
    clock     clock strobe
Laws: whether data may be damaged now is the atlas's to say (tests/sim/atlas.py); what a fault draws
comes from a stream of its own name. Its tests are tests/sim/test_faults.py.
Left out: when faults come, and to whom (tests/sim/generate.py).
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kvnode.core.batch import Family
from kvnode.core.messages import NodeNumber
from tests.sim.atlas import Atlas
from tests.sim.client import Client
from tests.sim.cluster import Cluster
from tests.sim.disk import Image
from tests.sim.host import Host
from tests.sim.plan import Fault
from tests.sim.story import Broken

Pair = tuple[int, int]
_HELD = "is held by a life"
"""What a node says that finds its name in use."""
_OPERATOR_US = 2_000_000
"""How often somebody looks for nodes that have died by themselves, and starts them."""
_COPY_LOOKS = 3
"""At so many looks in a row a copy may be seen beside its original."""


class Faults:
    """All faults of one run that act at present."""

    def __init__(
        self, world: Cluster, clients: Sequence[Client], *, seed: int, is_unsafe: bool
    ) -> None:
        self.atlas = Atlas(world, is_unsafe=is_unsafe)
        self._world = world
        self._clients = clients
        self._seed = seed
        self._active: dict[str, Fault] = {}
        # By the name of the fault: what it wants to be so while it acts.
        self._cuts: dict[str, set[Pair]] = {}
        self._client_cuts: dict[str, set[Pair]] = {}
        self._shakes: dict[str, dict[str, Any]] = {}
        self._down: dict[str, set[NodeNumber]] = {}
        self._paused: dict[str, set[NodeNumber]] = {}
        self._clocks: dict[str, tuple[NodeNumber, int]] = {}
        self._disks: dict[str, tuple[list[NodeNumber], str, int]] = {}
        self._images: dict[str, Image] = {}
        self._beside: Counter[int] = Counter()
        """For how many looks a copy (by its machine) has been alive beside its original."""
        self._usual = {
            pair: (link.delay_us, link.drops, link.duplicates, link.reorders)
            for pair, link in world.network.links.items()
        }
        self._starts: Callable[[NodeNumber], bool] = lambda _: True
        world.later(_OPERATOR_US, self._look_after)

    def begin(self, fault: Fault) -> bool:
        """Begin a fault; returns whether it acts."""
        self._active[fault.id] = fault
        chance = random.Random(f"{self._seed} {fault.id}")
        acts = KINDS[fault.kind](self, fault, fault.args, chance) is not False
        if not acts or not fault.for_us:
            self._active.pop(fault.id)
            return acts
        self._world.later(fault.for_us, lambda: self.end(fault.id))
        return True

    def end(self, name: str) -> None:
        """End a fault, if it acts."""
        fault = self._active.pop(name, None)
        if fault is None:
            return
        wanted: list[dict[str, Any]] = [
            self._cuts, self._client_cuts, self._shakes, self._down, self._paused,
            self._clocks, self._disks,
        ]  # fmt: skip
        for each in wanted:
            each.pop(name, None)
        if name in self._images:
            self._put_back(fault.args["node"], self._images.pop(name))
        self._settle()

    def end_all(self) -> None:
        """End all faults; every node is up."""
        self._starts = lambda _: True
        self._end_active()
        self._settle()
        self._start_dead()

    def _end_active(self) -> None:
        for name in list(self._active):
            self.end(name)
        for each in (self._cuts, self._client_cuts, self._shakes, self._clocks, self._disks):
            each.clear()
        self._world.network.unclog_all()

    def leave_only(self, core: Iterable[NodeNumber], *, is_cut: bool) -> None:
        """End all faults; nodes outside the core are down, or cut off from it and from clients."""
        nodes = frozenset(core)
        others = set(self._world.hosts) - nodes
        self._starts = lambda node: node in nodes or is_cut
        self._end_active()
        if is_cut:
            self._cuts["core"] = _both_ways(itertools.product(nodes, sorted(others)))
            numbers = range(len(self._clients))
            self._client_cuts["core"] = set(itertools.product(numbers, others))
        else:
            self._down["core"] = others
            for node in others:
                self._world.hosts[node].down()
        self._settle()
        self._start_dead()

    def heal_core(self) -> None:
        """End what `leave_only` began."""
        for each in (self._cuts, self._client_cuts, self._down):
            each.pop("core", None)
        self.end_all()

    # ---- what is to be so ------------------------------------------------------------------

    def _settle(self) -> None:
        self._settle_cuts()
        self._settle_clients()
        self._settle_links()
        self._settle_clocks()
        self._settle_disks()
        self._settle_nodes()

    def _settle_cuts(self) -> None:
        world, links = self._world, self._world.network.links
        wanted = set().union(*self._cuts.values())
        for a, b in itertools.combinations(sorted(world.hosts), 2):
            ways = ((a, b), (b, a))
            if any(links[way].is_cut and way not in wanted for way in ways):
                world.mend(a, b)
            for way in ways:
                if way in wanted and not links[way].is_cut:
                    world.cut(*way, one_way=True)

    def _settle_clients(self) -> None:
        wanted = set().union(*self._client_cuts.values())
        for number, client in enumerate(self._clients):
            for node in self._world.hosts:
                is_wanted = (number, node) in wanted
                if is_wanted and node not in client.cut_from:
                    client.cut(node)
                elif not is_wanted and node in client.cut_from:
                    client.mend(node)

    def _settle_links(self) -> None:
        for pair, link in self._world.network.links.items():
            if pair not in self._usual:
                continue
            delay_us, drops, duplicates, reorders = self._usual[pair]
            for args in self._shakes.values():
                if not _concerns(pair, args):
                    continue
                delay_us = max(delay_us, tuple(args.get("delay_us", delay_us)))
                drops = max(drops, args.get("drops", 0.0))
                duplicates = max(duplicates, args.get("duplicates", 0.0))
                reorders = args.get("reorders", reorders)
            link.delay_us, link.drops = delay_us, drops
            link.duplicates, link.reorders = duplicates, reorders

    def _settle_clocks(self) -> None:
        wanted = dict.fromkeys(self._world.hosts, 0)
        wanted.update(self._clocks.values())
        for node, ahead_ms in wanted.items():
            if self._world.hosts[node].ahead_ms != ahead_ms:
                self._world.hosts[node].set_clock(ahead_ms)

    def _settle_disks(self) -> None:
        usual = {"sync_us": 0, "noise_us": 0, "is_full": 0, "is_exhausted": 0, "is_stalled": 0}
        for node, host in self._world.hosts.items():
            wanted = dict(usual)
            for numbers, name, value in self._disks.values():
                if node in numbers:
                    wanted[name] = max(value, wanted[name])
            host.disk.sync_us = max(self._sync_us, wanted.pop("sync_us"))
            host.disk.noise_us = wanted.pop("noise_us")
            for name, value in wanted.items():
                setattr(host.disk, name, bool(value))

    _sync_us = 3_000

    def set_usual_sync(self, sync_us: int) -> None:
        """Say how long a flush takes where no fault makes it longer."""
        self._sync_us = sync_us
        self._settle_disks()

    def _settle_nodes(self) -> None:
        paused = set().union(*self._paused.values())
        for node, host in self._world.hosts.items():
            if host.life is not None and self._is_held_down(node):
                host.kill()
            elif host.life is not None and (node in paused) != host.is_paused:
                (host.pause if node in paused else host.resume)()

    def _is_held_down(self, node: NodeNumber) -> bool:
        return any(node in nodes for nodes in self._down.values())

    def _start_dead(self) -> None:
        for node, host in self._world.hosts.items():
            if host.life is None and not self._is_held_down(node) and self._starts(node):
                is_held = _HELD in host.why_ended
                if is_held:
                    self._end_copies(node)
                host.start(is_restored=is_held)

    def _end_copies(self, node: NodeNumber) -> None:
        """A copy was let in in a node's place: before somebody says that it is over, it is."""
        for ghost in self._world.ghosts:
            if ghost.number == node:
                self._end_twin(ghost)

    def _look_after(self) -> None:
        """Somebody starts nodes that have died by themselves."""
        self.atlas.look()
        self._check_copies()
        self._start_dead()
        self._world.later(_OPERATOR_US, self._look_after)

    def _check_copies(self) -> None:
        """Assert that no copy goes on beside the node that it was made of, if a third one has
        reached both for some time."""
        for ghost in self._world.ghosts:
            beside = self._beside[ghost.slot] + 1 if self._is_beside(ghost) else 0
            self._beside[ghost.slot] = beside
            if beside > _COPY_LOOKS:
                text = f"seed {self._seed}: node {ghost.number} has two lives, on two machines"
                raise Broken("one-life-an-identity", text)

    def _is_beside(self, ghost: Host) -> bool:
        hosts, links = self._world.hosts, self._world.network.links
        here = hosts[ghost.number]
        if ghost.life is None or here.life is None or here.is_paused:
            return False
        others = [each for each in hosts.values() if each is not here]
        return any(
            not (links[here.slot, each.slot].is_cut or links[each.slot, here.slot].is_cut)
            for each in others
            if each.life is not None and not each.is_paused
        )

    # ---- network ---------------------------------------------------------------------------

    def _shake(self, fault: Fault, args: dict[str, Any], chance: random.Random) -> None:
        """Links (of `nodes`, of `pairs`, all) lose, double, delay or reorder messages."""
        self._shakes[fault.id] = args
        self._settle_links()

    def _clog(self, fault: Fault, args: dict[str, Any], chance: random.Random) -> None:
        """Links hold everything for a while, and deliver it then."""
        for a, b in args["pairs"]:
            self._world.network.clog(a, b, fault.for_us)

    def _cut(self, fault: Fault, args: dict[str, Any], chance: random.Random) -> None:
        """Links are cut: both ways, or only from the first to the second of each pair."""
        pairs = [(a, b) for a, b in args["pairs"]]
        self._cuts[fault.id] = set(pairs) if args.get("one_way") else _both_ways(pairs)
        self._settle_cuts()

    def _split(self, fault: Fault, args: dict[str, Any], chance: random.Random) -> None:
        """Groups of nodes that cannot reach one another, but for a `bridge` that reaches all."""
        bridge = args.get("bridge")
        groups = [[node for node in group if node != bridge] for group in args["groups"]]
        apart = itertools.combinations(groups, 2)
        pairs = itertools.chain.from_iterable(itertools.product(a, b) for a, b in apart)
        self._cuts[fault.id] = _both_ways(pairs)
        self._settle_cuts()

    def _ring(self, fault: Fault, args: dict[str, Any], chance: random.Random) -> None:
        """Every node reaches its two neighbours in `order` alone."""
        order = args["order"]
        count = len(order)
        far = [
            (order[a], order[b])
            for a, b in itertools.combinations(range(count), 2)
            if b - a not in (1, count - 1)
        ]
        self._cuts[fault.id] = _both_ways(far)
        self._settle_cuts()

    def _swizzle(self, fault: Fault, args: dict[str, Any], chance: random.Random) -> None:
        """A node's links are cut one by one, and mended in another order."""
        node, gap_us = args["node"], args["gap_us"]
        others = [each for each in args["order"] if each != node]
        cuts: set[Pair] = self._cuts.setdefault(fault.id, set())
        for number, other in enumerate(others):
            self._step(fault, gap_us * number, cuts.update, _both_ways([(node, other)]))
        for number, other in enumerate(args["mend_order"]):
            at_us = gap_us * (len(others) + number)
            self._step(fault, at_us, cuts.difference_update, _both_ways([(node, other)]))

    def _flap(self, fault: Fault, args: dict[str, Any], chance: random.Random) -> None:
        """A link is cut and mended over and over."""
        pairs = [(a, b) for a, b in args["pairs"]]
        cut = set(pairs) if args.get("one_way") else _both_ways(pairs)
        cuts: set[Pair] = self._cuts.setdefault(fault.id, set())
        for number in range(fault.for_us // args["period_us"]):
            change = cuts.difference_update if number % 2 else cuts.update
            self._step(fault, args["period_us"] * number, change, cut)

    def _step(self, fault: Fault, after_us: int, change: Any, pairs: set[Pair]) -> None:
        """Change what a fault cuts, some time after its beginning, if it still acts then."""

        def act() -> None:
            if fault.id in self._active:
                change(pairs)
                self._settle_cuts()

        self._world.later(after_us, act)

    def _client_cut(self, fault: Fault, args: dict[str, Any], chance: random.Random) -> None:
        """Some clients cannot reach some nodes; what is under way is stuck."""
        pairs = itertools.product(args["clients"], args["nodes"])
        self._client_cuts[fault.id] = {(c, n) for c, n in pairs if c < len(self._clients)}
        self._settle_clients()

    # ---- processes -------------------------------------------------------------------------

    def _crash(self, fault: Fault, args: dict[str, Any], chance: random.Random) -> None:
        """Nodes lose power at one instant, and are started when it is back."""
        for node in args["nodes"]:
            if self._world.hosts[node].life is not None:
                self._world.hosts[node].kill(keeps=args.get("keeps", True))
        self._stay_down(fault, args["nodes"])

    def _kill(self, fault: Fault, args: dict[str, Any], chance: random.Random) -> None:
        """Processes are killed (-9), and started later."""
        for node in args["nodes"]:
            if self._world.hosts[node].life is not None:
                self._world.hosts[node].end("killed")
        self._stay_down(fault, args["nodes"])

    def _stop(self, fault: Fault, args: dict[str, Any], chance: random.Random) -> None:
        """Nodes are stopped cleanly, and started later."""
        for node in args["nodes"]:
            host = self._world.hosts[node]
            if host.life is not None and not host.is_paused:
                host.stop()
        self._stay_down(fault, args["nodes"])

    def _stay_down(self, fault: Fault, nodes: Iterable[NodeNumber]) -> None:
        if fault.for_us:
            self._down[fault.id] = set(nodes)
            self._world.later(fault.for_us + 1, self._start_dead)
        else:
            self._start_dead()

    def _pause(self, fault: Fault, args: dict[str, Any], chance: random.Random) -> None:
        """Processes stand still."""
        self._paused[fault.id] = set(args["nodes"])
        self._settle_nodes()

    def _wipe(self, fault: Fault, args: dict[str, Any], chance: random.Random) -> bool:
        """A node loses its disk, and begins anew under its name."""
        host = self._world.hosts[args["node"]]
        if not self.atlas.may_damage(host.number):
            return False
        self.atlas.on_damage(host.number)
        if host.life is not None:
            host.kill()
        host.wipe()
        self._stay_down(fault, [host.number])
        return True

    def _restore(self, fault: Fault, args: dict[str, Any], chance: random.Random) -> None:
        """What is on a node's disk now is put back there when the fault ends.

        A life begins in between: that of one and the same life could not be told from a crash.
        """
        host = self._world.hosts[args["node"]]
        self._images[fault.id] = host.disk.image()
        if host.life is not None:
            host.end("to be started anew")
        self._start_dead()

    def _put_back(self, node: NodeNumber, image: Image) -> None:
        if not self.atlas.may_damage(node):
            return
        self.atlas.on_damage(node)
        host = self._world.hosts[node]
        if host.life is not None:
            host.kill()
        host.restore(image)
        self._start_dead()

    def _twin(self, fault: Fault, args: dict[str, Any], chance: random.Random) -> bool:
        """A copy of a node's folder is started elsewhere: whoever comes later must go. With `stays`
        nobody else ends the copy."""
        host = self._world.hosts[args["node"]]
        if not self.atlas.may_damage(host.number):
            return False
        self.atlas.on_damage(host.number)  # it may be let in, and take what it was sent with it
        ghost = self._world.copy_identity(host.number)
        if not args.get("stays"):
            self._world.later(max(fault.for_us, 1), lambda: self._end_twin(ghost))
        return True

    def _end_twin(self, ghost: Host) -> None:
        if ghost.life is not None:
            ghost.kill()

    def _epoch(self, fault: Fault, args: dict[str, Any], chance: random.Random) -> None:
        """One node hears of a newer topology, which it tells the others."""
        identities = [host.identity for host in self._world.hosts.values()]
        known = [each.topology for each in identities if each is not None]
        newest = max(known, key=lambda each: each.epoch, default=self._world.topology)
        self._world.follow(args["node"], newest.with_members(newest.members))

    # ---- disks -----------------------------------------------------------------------------

    def _slow_disk(self, fault: Fault, args: dict[str, Any], chance: random.Random) -> None:
        """Flushes take longer."""
        self._disks[fault.id] = [args["node"]], "sync_us", args["sync_us"]
        self._settle_disks()

    def _noisy_disks(self, fault: Fault, args: dict[str, Any], chance: random.Random) -> None:
        """Several nodes share a disk with others: each flush takes its own time."""
        self._disks[fault.id] = args["nodes"], "noise_us", args["noise_us"]
        self._settle_disks()

    def _full(self, fault: Fault, args: dict[str, Any], chance: random.Random) -> None:
        """A disk is full: to the watermark, or to the last byte."""
        name = "is_exhausted" if args.get("is_exhausted") else "is_full"
        self._disks[fault.id] = [args["node"]], name, 1
        self._settle_disks()

    def _stall(self, fault: Fault, args: dict[str, Any], chance: random.Random) -> None:
        """An engine is behind with its work, and takes no writes."""
        self._disks[fault.id] = [args["node"]], "is_stalled", 1
        self._settle_disks()

    def _fail_sync(self, fault: Fault, args: dict[str, Any], chance: random.Random) -> None:
        """The next flush meets an error: the node ends, and is started some time later."""
        self._world.hosts[args["node"]].disk.fails_next_sync = True

    def _flip(self, fault: Fault, args: dict[str, Any], chance: random.Random) -> bool:
        """Bits flip in what is durable on one disk; with `restarts` the node is started anew."""
        host = self._world.hosts[args["node"]]
        if not self.atlas.may_damage(host.number):
            return False
        for _ in range(args["count"]):
            self.atlas.on_damage(host.number, host.disk.flip(chance))
        if args.get("restarts") and host.life is not None:
            host.end("to be started anew")
            self._stay_down(fault, [host.number])
        return True

    def _garble(self, fault: Fault, args: dict[str, Any], chance: random.Random) -> bool:
        """A bit of a record flips on one disk where no checksum of a block sees it."""
        host = self._world.hosts[args["node"]]
        names = self._records_to_damage(host)
        if names:
            name = chance.choice(names)
            size = len(host.disk.spaces.families[Family.RECORDS][name])
            host.disk.garble(Family.RECORDS, name, chance.randrange(size))
            self.atlas.on_damage(host.number, (Family.RECORDS, name))
        return bool(names)

    def _unreadable(self, fault: Fault, args: dict[str, Any], chance: random.Random) -> bool:
        """Records of one disk cannot be read any more."""
        host = self._world.hosts[args["node"]]
        names = self._records_to_damage(host)
        if names:
            for name in chance.sample(names, min(args["count"], len(names))):
                host.disk.unreadable(Family.RECORDS, name)
            self.atlas.on_damage(host.number)
        return bool(names)

    def _records_to_damage(self, host: Host) -> list[bytes]:
        """Return the records of a disk; none while it must not be damaged, nor while a turn that
        has read them waits to be written."""
        if not self.atlas.may_damage(host.number) or host.is_stalled:
            return []
        return list(host.disk.spaces.families[Family.RECORDS])

    # ---- clocks ----------------------------------------------------------------------------

    def _clock(self, fault: Fault, args: dict[str, Any], chance: random.Random) -> None:
        """A node's clock is wrong, from now on or until the fault ends."""
        self._clocks[fault.id] = args["node"], args["ahead_ms"]
        self._settle_clocks()

    def _strobe(self, fault: Fault, args: dict[str, Any], chance: random.Random) -> None:
        """A node's clock jumps there and back, over and over."""
        node, period_us = args["node"], args["period_us"]

        def jump(ahead_ms: int) -> None:
            if fault.id in self._active:
                self._clocks[fault.id] = node, ahead_ms
                self._settle_clocks()

        for number in range(fault.for_us // period_us):
            ahead_ms = 0 if number % 2 else args["ahead_ms"]
            self._world.later(period_us * number, lambda ahead_ms=ahead_ms: jump(ahead_ms))  # type: ignore[misc]


def _both_ways(pairs: Iterable[Pair]) -> set[Pair]:
    return {way for a, b in pairs if a != b for way in ((a, b), (b, a))}


def _concerns(pair: Pair, args: dict[str, Any]) -> bool:
    if "pairs" in args:
        return list(pair) in args["pairs"]
    return "nodes" not in args or pair[0] in args["nodes"] or pair[1] in args["nodes"]


Begin = Callable[[Faults, Fault, dict[str, Any], random.Random], bool | None]

KINDS: dict[str, Begin] = {
    "shake": Faults._shake,
    "clog": Faults._clog,
    "cut": Faults._cut,
    "split": Faults._split,
    "ring": Faults._ring,
    "swizzle": Faults._swizzle,
    "flap": Faults._flap,
    "client_cut": Faults._client_cut,
    "crash": Faults._crash,
    "kill": Faults._kill,
    "stop": Faults._stop,
    "pause": Faults._pause,
    "wipe": Faults._wipe,
    "restore": Faults._restore,
    "twin": Faults._twin,
    "epoch": Faults._epoch,
    "slow_disk": Faults._slow_disk,
    "noisy_disks": Faults._noisy_disks,
    "full": Faults._full,
    "stall": Faults._stall,
    "fail_sync": Faults._fail_sync,
    "flip": Faults._flip,
    "garble": Faults._garble,
    "unreadable": Faults._unreadable,
    "clock": Faults._clock,
    "strobe": Faults._strobe,
}
