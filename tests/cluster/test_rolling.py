"""One fault after another under a load: no operation fails, nothing acknowledged is lost.

Clients read, put and delete shared keys, and each worker rewrites keys of its own with a counter
and reads them: never below what it was acknowledged. Short here; for ten minutes, at the full
rate and with a bound on the worst operation in `python -m tests.soak "rolling kill"` and the like.
"""

from __future__ import annotations

import pytest

from kvclient.testing import Cluster
from kvclient.testing.schedule import by_chance
from kvclient.testing.workloads import KEYSPACES, Load
from tests.support.figures import tell
from tests.support.scale import is_soak, lasting, scaled
from tests.support.seeds import derive, run_seed
from tests.support.trials import suffer

_WORST_MS = 1_000
"""Of a soak, on a machine that does nothing else."""


KINDS = ["kill", "pause", "cut"]
"""In CI; the shapes of partitions have tests of their own there (test_cut_off.py)."""
if is_soak():
    KINDS += ["isolate", "halves", "bridge", "ring"]


# 31 (kill), 25 (pause), 32 (the partitions), 20 (cut)
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("kind", KINDS)
def test_faults_in_turn_cost_no_operation_and_no_data(kind: str) -> None:
    seed = derive(run_seed(), f"rolling {kind}")
    seconds = lasting(6, soak_s=600)
    load = Load(
        workloads=("mixed", "register"),
        seconds=seconds,
        rate=scaled(300, soak=2_100),
        # So many, over one connection, that 2,000 a second are reached on two processors, and no
        # more: what waits together when a node stalls waits longer.
        workers=scaled(24, soak=192),
        clients=1,
        seed=seed,
        timeout_s=10.0,
    )
    has_links = kind not in ("kill", "pause")
    with Cluster(5, settings=KEYSPACES, links=has_links) as cluster:
        faults = by_chance(
            seed,
            cluster.ids,
            kinds=[kind],
            seconds=seconds,
            every_s=10 if is_soak() else 2.5,
            for_s=5 if is_soak() else 1.2,
        )
        trial = suffer(cluster, load, faults)
    tell(f"rolling {kind}", **trial.figures())
    trial.check()
    if is_soak():
        assert trial.outcome.verdict.worst_ms < _WORST_MS
