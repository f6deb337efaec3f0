"""Clients and faults for one simulated cluster, and the end at which everything must be well.

What it decides: which operation or fault comes next, in `chaos` by chance; in the state machine of
tests/sim/test_cluster_machine.py hypothesis calls the same methods.
Laws: faults never take away every copy of what was acknowledged (a kill keeps what was flushed,
and a disk is wiped only while all other copies are there); `finish` heals, waits until owners are
equal, reads every key at all owners, and checks all of history.
"""

from __future__ import annotations

from collections.abc import Callable

from kvnode.core.batch import Family
from kvnode.core.bounds import Limits
from kvnode.core.keys import encode_key
from kvnode.core.messages import NodeNumber
from kvnode.core.topology import Keyspace
from tests.sim.checks import OK, Read, Write
from tests.sim.client import Client
from tests.sim.cluster import Cluster
from tests.sim.invariants import check_full, check_phase

KEYS = (b"a", b"b")
_LAGS_MS = (0, 0, 2_000, 20_000)
_SETTLE_US = 12_000_000
_HANDOFF_US = 60_000_000
_EQUAL_US = 120_000_000
_REAP_US = 25_000_000


class Trial:
    """A cluster with some clients, of which some have clocks that lag."""

    def __init__(
        self,
        seed: int,
        *,
        nodes: int = 5,
        keyspace: Keyspace | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.cluster = Cluster(seed, nodes=nodes, keyspace=keyspace, limits=limits)
        self.clients = [Client(self.cluster, i, lag_ms=lag) for i, lag in enumerate(_LAGS_MS)]
        self.last_read: dict[tuple[int, bytes], Read] = {}
        self._values = 0
        self.cluster.run(10_000)

    def put(self, client: int, key: bytes, *, wait: bool = True) -> Write:
        """Put a value that no other put has."""
        return self.clients[client].put(key, self._next_value(), wait=wait)

    def put_over(self, client: int, key: bytes) -> Write | None:
        """Put with the context of that client's last read, explicitly."""
        read = self.last_read.get((client, key))
        if read is None:
            return None
        return self.clients[client].put(key, self._next_value(), context=read)

    def delete(self, client: int, key: bytes) -> Write:
        """Delete."""
        return self.clients[client].delete(key)

    def get(self, client: int, key: bytes, *, at: NodeNumber | None = None) -> Read:
        """Read, and remember it for `put_over`."""
        read = self.clients[client].get(key, at=at)
        if read.outcome == OK:
            self.last_read[client, key] = read
        return read

    def cut(self, a: NodeNumber, b: NodeNumber, *, one_way: bool = False) -> None:
        """Cut the link between two nodes."""
        if a != b:
            self.cluster.cut(a, b, one_way=one_way)

    def shake(self, drops: float, duplicates: float) -> None:
        """Make every link lose and double messages from now on."""
        for link in self.cluster.network.links.values():
            link.drops, link.duplicates = drops, duplicates

    def kill(self, node: NodeNumber) -> None:
        """Kill a node, if it lives."""
        host = self.cluster.hosts[node]
        if host.life is not None:
            host.kill()

    def wipe(self, node: NodeNumber) -> None:
        """Have a node lose its disk and start anew, if no other copy is missing or in doubt."""
        if self.cluster.are_owners_equal() and not self._hints():
            self.cluster.hosts[node].kill()
            self.cluster.hosts[node].wipe()
            self.cluster.hosts[node].start()

    def start(self, node: NodeNumber) -> None:
        """Start a node, if it is dead."""
        host = self.cluster.hosts[node]
        if host.life is None:
            host.start()

    def start_all(self) -> None:
        """Start every node that is dead."""
        for node in self.cluster.hosts:
            self.start(node)

    def wait(self, for_ms: int) -> None:
        """Let time pass."""
        self.cluster.run(for_ms * 1_000)

    def finish(self) -> None:
        """Heal, wait for what is under way, mend every key at all owners, check everything."""
        cluster = self.cluster
        check_phase(cluster)
        self.shake(0, 0)
        cluster.heal()
        self.start_all()
        cluster.run(_SETTLE_US)
        cluster.run(_HANDOFF_US, until=lambda: not self._hints())
        assert not self._hints(), f"seed {cluster.seed}: hints that never left"
        cluster.watch.healed_us = cluster.now_us
        self._become_equal()
        for key in KEYS:
            self._mend(key)
        check_full(cluster)

    def _become_equal(self) -> None:
        """Invariant 8: equal trees on all owners, everything proven, and it stays so. Twice, since
        owners reap each for itself, in their own time."""
        cluster = self.cluster
        for _ in range(2):
            cluster.run(_EQUAL_US, until=cluster.are_owners_equal)
            assert cluster.are_owners_equal(), f"seed {cluster.seed}: owners stay different"
            if not self._graves():
                break
            cluster.run(_REAP_US, until=lambda: not self._graves())
        cluster.run(_EQUAL_US, until=cluster.are_owners_equal)
        for host in cluster.hosts.values():
            host.check_trees()

    def _graves(self) -> bool:
        hosts = self.cluster.hosts.values()
        return any(host.engine.scan(Family.GRAVES, b"", None, 1) for host in hosts)

    def _hints(self) -> int:
        lives = (host.life for host in self.cluster.hosts.values())
        return sum(life.hints.pending for life in lives if life is not None)

    def _mend(self, key: bytes) -> None:
        cluster = self.cluster
        name = encode_key(cluster.keyspace.name, key)
        n = self.cluster.keyspace.n
        answers = [client.get(key, r=n, explain=True) for client in self.clients[:2]]
        if any(read.outcome != OK for read in answers):
            self.cluster.fail(name, "a healed cluster gives no answer", name="8-healed-serves")
        if answers[0].value != answers[1].value:
            self.cluster.fail(name, "two full reads differ", name="7-full-reads-agree")
        if answers[1].repaired:
            self.cluster.fail(name, "a mended key was mended again", name="8-no-repairs-left")

    def _next_value(self) -> bytes:
        self._values += 1
        return b"v%d" % self._values


def chaos(
    seed: int,
    *,
    steps: int = 40,
    keyspace: Keyspace | None = None,
    limits: Limits | None = None,
) -> Trial:
    """Run a random history to its checked end."""
    trial = Trial(seed, keyspace=keyspace, limits=limits)
    chance = trial.cluster.chance("workload")
    trial.shake(chance.choice((0.0, 0.02)), chance.choice((0.0, 0.05)))
    for _ in range(steps):
        _step(trial)
    trial.finish()
    return trial


def _step(trial: Trial) -> None:
    """Do one thing; reads and writes are most of it."""
    chance = trial.cluster.chance("workload")
    client, key = chance.randrange(len(trial.clients)), chance.choice(KEYS)
    nodes = sorted(trial.cluster.hosts)
    a, b = chance.sample(nodes, 2)
    actions: list[tuple[int, Callable[[], object]]] = [
        (6, lambda: trial.put(client, key, wait=chance.random() < 0.7)),
        (3, lambda: trial.put_over(client, key)),
        (1, lambda: trial.delete(client, key)),
        (7, lambda: trial.get(client, key)),
        (2, lambda: trial.cut(a, b, one_way=chance.random() < 0.3)),
        (2, trial.cluster.heal),
        (2, lambda: trial.kill(a)),
        (1, lambda: trial.wipe(b)),
        (3, trial.start_all),
        (2, lambda: trial.wait(chance.choice((1, 30, 1_200)))),
    ]
    weights = [weight for weight, _ in actions]
    (_, act) = chance.choices(actions, weights)[0]
    act()
