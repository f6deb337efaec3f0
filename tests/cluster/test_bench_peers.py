"""Other stores beside ours, for real: started, loaded, asked, and gone.

Each needs its programs and its Python client, and is skipped aloud without.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

from bench.target import Wanted, starter
from kvnode.bench import workers
from kvnode.bench.workers import Generator
from tests.support.scale import is_soak
from tests.unit.bench.builders import a_job

NEEDS = {
    "etcd": ("etcd", "aetcd"),
    "redis": ("redis-server", "redis"),
    "zookeeper": ("/usr/share/java/zookeeper.jar", "kazoo"),
    "cassandra": ("mvn", "cassandra"),
}
_IS_LONG = ("cassandra",)
"""Takes half a minute to start, or minutes where little of a processor is free."""


@pytest.mark.parametrize("system", NEEDS)
def test_a_store_answers_every_kind_of_operation_and_leaves_nothing(
    system: str, tmp_path: Path
) -> None:
    program, driver = NEEDS[system]
    if system in _IS_LONG and not is_soak():
        pytest.skip(f"{system} takes too long to start for CI: python -m tests.soak")
    is_there = shutil.which(program) or (Path(program).is_absolute() and Path(program).exists())
    if not is_there or importlib.util.find_spec(driver) is None:
        pytest.skip(f"{program} or its Python client {driver} is not installed")
    with starter(system)(Wanted(parent=tmp_path)) as target:
        generator = Generator(where=target.where, adapter=target.adapter, options=target.options)
        with workers.working(generator) as load:
            load.run(a_job(is_load=True))
            for workload in ("a", "d", "e", "f"):
                tally = load.run(a_job(workload, seconds=0.3, tag=workload)).tally
                assert tally.operations > 0
                assert not tally.faults
        assert set(target.victims()) <= set(target.pids.values())
    assert list(tmp_path.iterdir()) == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in target.pids.values())
