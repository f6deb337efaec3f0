"""Where the time goes: py-spy beside running processes, and the functions that cost most.

Decides how a process is sampled and how its samples are read. Laws: recording never outlives the
run; a function counts once a sample in its share with what it calls, also when it calls itself.
Held by tests/unit/bench/test_profiler.py. Source: py-spy's raw format, a line
"outermost;...;innermost count" for each stack. Leaves out threads that do not hold the interpreter:
py-spy cannot tell their work from their waiting; `--cpu` shows what they cost with the rest.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from bench.target import BenchError

Format: TypeAlias = Literal["raw", "flamegraph", "speedscope"]
SUFFIX: dict[Format, str] = {"raw": ".raw", "flamegraph": ".svg", "speedscope": ".json"}
RATE_HZ = 100
"""Each sample halts the process; on a busy machine for as long as py-spy waits for a processor."""
_END_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What one function costs, as shares of all samples."""

    function: str
    own: float
    total: float
    """With what it calls."""


def spy() -> str:
    """Return the path of py-spy. Raises: BenchError, saying how to get it."""
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise BenchError("--profile needs py-spy: pip install py-spy")
    return found


@contextmanager
def recording(
    pids: Mapping[str, int], *, folder: Path, name: str, seconds: float, form: Format
) -> Iterator[None]:
    """Sample these processes for `seconds`, each into a file of `folder`, while the body runs.

    Raises: BenchError, if a process could not be sampled.
    """
    folder.mkdir(parents=True, exist_ok=True)
    program = spy()
    spies = {}
    for process, pid in pids.items():
        output = folder / f"{name}-{process}{SUFFIX[form]}"
        options = ["--pid", str(pid), "--duration", str(round(seconds)), "--rate", str(RATE_HZ)]
        options += ["--format", form, "--output", str(output)]
        command = [program, "record", "--gil", "--function", *options]
        spies[process] = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
    try:
        yield
    finally:
        said = {process: _ended(one) for process, one in spies.items()}
    for process, words in said.items():
        if spies[process].returncode != 0:
            raise BenchError(f"py-spy could not sample {process}: {words}")


def _ended(one: subprocess.Popen[str]) -> str:
    """Wait until a recording is written; return the last line that was said."""
    try:
        said = one.communicate(timeout=_END_TIMEOUT_S)[1]
    except subprocess.TimeoutExpired:
        one.kill()
        said = one.communicate()[1]
    return (said.strip().splitlines() or ["it said nothing"])[-1]


def top(stacks: Iterable[str]) -> list[Line]:
    """Return the functions of a raw recording, those with the greatest own share first."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    samples = 0
    for stack in stacks:
        frames, _, count = stack.rpartition(" ")
        functions = frames.split(";")
        samples += int(count)
        own[functions[-1]] += int(count)
        total.update(dict.fromkeys(functions, int(count)))
    return [
        Line(function=name, own=own[name] / samples, total=count / samples)
        for name, count in sorted(total.items(), key=lambda item: (-own[item[0]], item[0]))
    ]
