"""A whole cluster against a simple model, driven by hypothesis.

The model is the history of what clients were told (tests/sim/checks.py): every read is checked
against it when it ends and again at the end, when the cluster has healed. hypothesis chooses and
shrinks the operations and faults; delays and keys' places come from the cluster's own seed.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kvnode.core.topology import Keyspace, Resolve
from tests.sim.workload import KEYS, Trial

clients = st.integers(0, 3)
keys = st.sampled_from(KEYS)
nodes = st.integers(1, 5)


class ClusterMachine(RuleBasedStateMachine):
    """Puts, deletes, gets, explicit contexts, retries; cuts, lost messages, kills, restarts."""

    trial: Trial

    @initialize(seed=st.integers(0, 2**32), resolve=st.sampled_from(Resolve))
    def begin(self, seed: int, resolve: Resolve) -> None:
        self.trial = Trial(seed, keyspace=Keyspace(name="default", resolve=resolve))

    @rule(client=clients, key=keys)
    def put(self, client: int, key: bytes) -> None:
        self.trial.put(client, key)

    @rule(client=clients, key=keys)
    def put_without_waiting(self, client: int, key: bytes) -> None:
        self.trial.put(client, key, wait=False)

    @rule(client=clients, key=keys)
    def put_over_the_last_read(self, client: int, key: bytes) -> None:
        self.trial.put_over(client, key)

    @rule(client=clients, key=keys)
    def delete(self, client: int, key: bytes) -> None:
        self.trial.delete(client, key)

    @rule(client=clients, key=keys, at=nodes)
    def get(self, client: int, key: bytes, at: int) -> None:
        self.trial.get(client, key, at=at)

    @rule(a=nodes, b=nodes, one_way=st.booleans())
    def cut(self, a: int, b: int, one_way: bool) -> None:
        self.trial.cut(a, b, one_way=one_way)

    @rule(drops=st.sampled_from([0.0, 0.1]), duplicates=st.sampled_from([0.0, 0.2]))
    def shake(self, drops: float, duplicates: float) -> None:
        self.trial.shake(drops, duplicates)

    @rule()
    def heal(self) -> None:
        self.trial.cluster.heal()

    @rule(node=nodes)
    def kill(self, node: int) -> None:
        self.trial.kill(node)

    @rule(node=nodes)
    def start(self, node: int) -> None:
        self.trial.start(node)

    @rule(for_ms=st.sampled_from([1, 30, 1_200]))
    def wait(self, for_ms: int) -> None:
        self.trial.wait(for_ms)

    @invariant()
    def floors_are_in_order(self) -> None:
        for host in self.trial.cluster.hosts.values() if hasattr(self, "trial") else ():
            if host.life is not None:
                host.life.replica.floors.check()

    def teardown(self) -> None:
        if hasattr(self, "trial"):
            self.trial.finish()


TestClusterMachine = ClusterMachine.TestCase
TestClusterMachine.settings = settings(max_examples=60, stateful_step_count=30)
