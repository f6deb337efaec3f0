"""One run: a load on a cluster while a schedule of faults acts on it, and what it proves.

    load and faults together --> all undone --> convergence --> every key read --> verdict

Laws: the verdict is of the whole history, the last reads included; a cluster that does not converge
in time is still read and judged, and the outcome says so. An error of the kit (a node that does
not come back) ends the run; what was recorded by then stays in the recorder.
Tests: tests/cluster/test_kit.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from kvclient.aio import AsyncClient
from kvclient.testing.checks import Verdict, check
from kvclient.testing.cluster import Cluster
from kvclient.testing.converge import wait_converged
from kvclient.testing.drive import drive, read_all
from kvclient.testing.history import History, Recorder
from kvclient.testing.nemesis import Event, Nemesis
from kvclient.testing.schedule import Fault
from kvclient.testing.workloads import KEPT, STRICT, Load, Tally

CONVERGE_S = 60.0

Phase: TypeAlias = Literal["load", "converging", "reading"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run.

    Attributes:
        verdict: what its history proves.
        converge_s: from the last fault's end until nothing differed; None if that never came.
        faults: what was begun, in order.
        unread: keys that the time for the last reads did not suffice for.
    """

    verdict: Verdict
    converge_s: float | None
    faults: tuple[Fault, ...]
    unread: int = 0

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found, in all that was written, and the cluster converged."""
        return self.verdict.is_sound and self.converge_s is not None and not self.unread


async def run(
    cluster: Cluster,
    load: Load,
    faults: Sequence[Fault],
    recorder: Recorder,
    *,
    tally: Tally | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    on_phase: Callable[[Phase], None] = lambda phase: None,
    converge_timeout_s: float = CONVERGE_S,
) -> Outcome:
    """Run a load under faults on a cluster that is up; return what became of it.

    Raises: KitError, if the kit could not do what it should.
    """
    tally = tally or Tally()
    begun: list[Fault] = []

    def note(event: Event) -> None:
        if event.what == "begun":
            begun.append(event.fault)
        on_event(event)

    on_phase("load")
    await _suffer(Nemesis(cluster, faults, note), drive(cluster.seeds, load, recorder, tally))
    on_phase("converging")
    keys = dict.fromkeys((op.keyspace, op.key) for op in recorder.history.ops)
    async with AsyncClient(cluster.seeds, session=False) as client:
        converge_s = await wait_converged(client, keys, converge_timeout_s)
    on_phase("reading")
    unread = await read_all(cluster.seeds, load, recorder, tally)
    return Outcome(judged(recorder.history), converge_s, tuple(begun), unread)


async def _suffer(nemesis: Nemesis, driving: Coroutine[None, None, None]) -> None:
    """Let faults act until the load is over."""
    try:
        async with asyncio.TaskGroup() as tasks:
            suffering = tasks.create_task(nemesis.run())
            await driving
            suffering.cancel()  # which undoes what is left
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors


def judged(history: History) -> Verdict:
    """Return the verdict of a history of the workloads."""
    return check(history, strict=(STRICT,), siblings=(KEPT,))
