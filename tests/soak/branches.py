"""Which branches the quick tests take of the parts that decide what is kept.

`python -m tests.soak branches` runs the tests that need no real process under coverage.py and tells
a line for each part; a part below `LEAST` percent fails the job. What is left, and why, is in
docs/testing.md. Laws: a branch counts if some test took it, in either direction; `assert_never`
counts for nothing, since mypy holds that nothing gets there (pyproject.toml, tool.coverage).
Its test file is tests/unit/test_soak.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LEAST = 98.0
"""Percent of the branches of each part that tests must take."""

PARTS: dict[str, tuple[str, ...]] = {
    "versions": ("core/versions", "core/hlc", "core/twins"),
    "resolve": ("core/resolve",),
    "read": ("core/read", "core/heard", "core/repair", "core/explain"),
    "write": ("core/write", "core/writing", "core/operations"),
    "hints": ("core/hints", "core/handoff", "core/standin"),
    "exchange": (
        "core/exchange", "core/runs", "core/sweeps", "core/trees", "core/conversations",
        "core/answering", "core/mending", "core/floors", "core/progress",
    ),
    "what is stored": (
        "core/record", "core/keys", "core/context", "core/batch", "core/conflict_log",
        "storage/tail",
    ),
    "what is sent": (
        "runtime/peer_codec", "runtime/exchange_codec", "runtime/settle_codec",
        "runtime/client_codec", "runtime/topology_codec",
    ),
}  # fmt: skip
"""The modules of each part."""

TESTS = (
    "tests/unit/core",
    "tests/unit/storage/test_tail.py",
    "tests/unit/runtime/test_peer_codec.py",
    "tests/unit/runtime/test_exchange_codec.py",
    "tests/unit/runtime/test_settle_codec.py",
    "tests/unit/runtime/test_client_codec.py",
    "tests/unit/runtime/test_topology_codec.py",
    "tests/property",
    "tests/sim",
)


def files() -> list[str]:
    """Return every module that is measured, from the root."""
    return [_path(name) for names in PARTS.values() for name in names]


def command(tests: tuple[str, ...], data: Path) -> list[str]:
    """Return the command that begins a pytest run of `tests` under measurement."""
    run = [sys.executable, "-m", "coverage", "run", f"--data-file={data}"]
    return [*run, f"--include={','.join(files())}", "-m", "pytest", "-q", *tests]


def measured(data: Path, root: Path) -> dict[str, Any]:
    """Return coverage.py's report of a run, as its JSON format has it."""
    report = data.with_suffix(".json")
    subprocess.run(
        [sys.executable, "-m", "coverage", "json", "-q", f"--data-file={data}", "-o", report],
        cwd=root,
        check=True,
        capture_output=True,
    )
    told: dict[str, Any] = json.loads(report.read_text())
    return told


def judge(told: Mapping[str, Any]) -> tuple[list[str], bool]:
    """Return a line for each part, and whether all are good enough.

    A module that no test imported has taken none of its branches.
    """
    lines, is_good = [], True
    for part, names in PARTS.items():
        found = {name: told["files"].get(_path(name)) for name in names}
        sums = [each["summary"] for each in found.values() if each]
        taken = sum(each["covered_branches"] for each in sums)
        there = sum(each["num_branches"] for each in sums)
        share = 100.0 * taken / there if there else 100.0
        is_enough = share >= LEAST and all(found.values())
        is_good &= is_enough
        left = [f"{name} {_left(each)}" for name, each in found.items() if not each or _left(each)]
        said = f"branches of {part}: {taken} of {there}, {share:.1f} %"
        lines.append("; not taken: ".join([said, *([", ".join(left)] if left else [])]))
        if not is_enough:
            lines[-1] = f"FAILED: {lines[-1]}"
    return lines, is_good


def _path(name: str) -> str:
    return f"kvnode/{name}.py"


def _left(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "never imported"
    return " ".join(f"{start}->{end}" for start, end in found["missing_branches"])
