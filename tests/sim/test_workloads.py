"""What the kinds of operations do, and that a lost element of a set is noticed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvnode.core.topology import Keyspace, Resolve
from tests.sim.client import Client
from tests.sim.cluster import Cluster
from tests.sim.history import OK, Write
from tests.sim.plan import Operation
from tests.sim.story import Broken
from tests.sim.workloads import KINDS, Workloads

SETS = Keyspace(name="default", sloppy=False, resolve=Resolve.SIBLINGS)


def workloads_of(seed: int) -> tuple[Cluster, Workloads]:
    cluster = Cluster(seed, keyspace=SETS)
    clients = [Client(cluster, number) for number in range(2)]
    cluster.run(100_000)
    return cluster, Workloads(cluster, clients)


def item(name: str, kind: str, client: int = 0) -> Operation:
    return Operation(id=name, at_us=0, client=client, kind=kind, keyspace="default", key="k")


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_ends_well_in_a_cluster_that_is_well(seed: int, kind: str) -> None:
    cluster, workloads = workloads_of(seed)
    workloads.begin(item("o0", kind))
    cluster.run(1_000_000)
    assert {call.outcome for _, call in workloads.calls} == {OK}
    assert workloads.outcomes().total() == len(workloads.calls) >= 1


def test_elements_that_were_added_at_one_time_are_all_in_the_set(seed: int) -> None:
    cluster, workloads = workloads_of(seed)
    for number in range(6):
        workloads.begin(item(f"o{number}", "add", number % 2))
    cluster.run(1_000_000)
    workloads.begin(item("o6", "add"))
    cluster.run(1_000_000)
    writes = [call for _, call in workloads.calls if isinstance(call, Write)]
    assert len(writes) == 7
    assert writes[-1].value == b"o0,o1,o2,o3,o4,o5,o6"
    workloads.check_sets(Client(cluster, 9))


def test_an_acknowledged_element_that_is_missing_is_told(seed: int) -> None:
    cluster, workloads = workloads_of(seed)
    workloads.begin(item("o0", "add"))
    cluster.run(1_000_000)
    workloads.calls.append((replace(item("o1", "add")), workloads.calls[-1][1]))
    with pytest.raises(Broken, match=r"1-set-is-complete.*o1"):
        workloads.check_sets(Client(cluster, 9))
