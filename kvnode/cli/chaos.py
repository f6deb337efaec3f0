"""`kvnode chaos`: a load on a new local cluster while faults happen to it, and a verdict.

Decides which faults a run has, and how it ends: 0 if its history is sound and the cluster
converged, 1 if not. Laws: nothing is started before all that was asked for makes sense; unless
--hard says so, no more happens at once than the quorums survive; the same seed makes the same
faults; the history holds all that was answered, also of a run that was cut short. Held by
tests/unit/cli/test_chaos.py and tests/cluster/test_chaos.py. Leaves out the kit itself
(kvclient.testing) and how it looks (kvnode/cli/chaos_view.py). For people: docs/chaos.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from kvclient.testing import history
from kvclient.testing.cluster import Cluster
from kvclient.testing.files import KitError
from kvclient.testing.history import Recorder
from kvclient.testing.run import Outcome, judged, run
from kvclient.testing.schedule import KINDS, Fault, by_chance, excess, parse
from kvclient.testing.workloads import KEYSPACES, WORKLOADS, Load, Tally
from kvnode.cli.arguments import Arguments
from kvnode.cli.chaos_view import View, show_outcome, show_verdict, view
from kvnode.cli.errors import FAILED, UsageError, nearest

DEFAULT_FAULTS = ("kill", "pause", "wipe", "isolate", "cut", "halves", "slow", "slow-disk", "skew")
_N = 3
"""Replicas of a key, in a cluster that has so many nodes."""
_TICK_S = 0.25


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to be."""

    ids: tuple[str, ...]
    load: Load
    faults: tuple[Fault, ...]


def chaos(arguments: Arguments) -> int:
    """Run a load under faults, or judge a history; return 0 if it is sound."""
    if arguments.judge is not None:
        return _judge(arguments.judge)
    plan = planned(arguments)
    with _lines(arguments.history) as lines, view(plan.ids, plan.load, plan.faults) as shown:
        outcome = _run(arguments.data, plan, Recorder(lines), shown)
    show_outcome(outcome, plan.load)
    return 0 if outcome.is_sound else FAILED


def _judge(path: Path) -> int:
    with path.open() as lines:
        verdict = judged(history.read(lines))
    show_verdict(verdict)
    return 0 if verdict.is_sound else FAILED


# ---- what is to happen -----------------------------------------------------------------------


def planned(arguments: Arguments) -> Plan:
    """Return what the flags ask for.

    Raises: UsageError, KitError for a schedule that cannot be, OSError for one that cannot be read.
    """
    ids = tuple(f"n{number}" for number in range(1, arguments.nodes + 1))
    _refuse_unknown(arguments.workload, tuple(WORKLOADS), "workload")
    seed = secrets.randbits(32) if arguments.seed is None else arguments.seed
    load = Load(
        workloads=arguments.workload,
        seconds=arguments.seconds,
        rate=arguments.rate,
        workers=max(arguments.workers, len(arguments.workload)),
        seed=seed,
        timeout_s=arguments.timeout,
        is_strict=arguments.strict,
    )
    return Plan(ids, load, tuple(_schedule(arguments, ids, seed)))


def _schedule(arguments: Arguments, ids: tuple[str, ...], seed: int) -> list[Fault]:
    if arguments.schedule is not None:
        if arguments.faults is not None:
            raise UsageError("--schedule names the faults and --faults too: give one of them")
        faults = parse(arguments.schedule.read_text(), ids)
    else:
        faults = _by_chance(arguments, ids, seed)
    replicas = min(_N, len(ids))
    too_much = excess(faults, missing=replicas - (replicas // 2 + 1))
    if too_much is not None and not arguments.hard:
        raise UsageError(too_much)
    return faults


def _by_chance(arguments: Arguments, ids: Sequence[str], seed: int) -> list[Fault]:
    kinds = DEFAULT_FAULTS if arguments.faults is None else arguments.faults
    _refuse_unknown(kinds, KINDS, "fault")
    try:
        return by_chance(
            seed,
            ids,
            kinds=kinds,
            seconds=arguments.seconds,
            every_s=arguments.every,
            for_s=arguments.lasting,
            is_hard=arguments.hard,
        )
    except (KitError, ValueError) as error:
        raise UsageError(str(error)) from error


def _refuse_unknown(words: Sequence[str], known: Sequence[str], what: str) -> None:
    for word in words:
        if word not in known:
            hint = nearest(word, known) or f": there are {', '.join(known)}"
            raise UsageError(f"no {what} {word!r}{hint}")


# ---- the run ---------------------------------------------------------------------------------


@contextmanager
def _lines(path: Path | None) -> Iterator[TextIO | None]:
    if path is None:
        yield None
        return
    with path.open("w", encoding="utf-8") as lines:
        yield lines


def _run(directory: Path | None, plan: Plan, recorder: Recorder, shown: View) -> Outcome:
    with Cluster(len(plan.ids), directory=directory, settings=KEYSPACES) as cluster:
        return asyncio.run(_watched(cluster, plan, recorder, shown))


async def _watched(cluster: Cluster, plan: Plan, recorder: Recorder, shown: View) -> Outcome:
    tally = Tally()
    watching = asyncio.create_task(_watch(shown, tally))
    try:
        return await run(
            cluster,
            plan.load,
            plan.faults,
            recorder,
            tally=tally,
            on_event=shown.on_event,
            on_phase=shown.on_phase,
        )
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


async def _watch(shown: View, tally: Tally) -> None:
    while True:
        shown.on_tick(tally)
        await asyncio.sleep(_TICK_S)
