"""How much of a test runs: enough for CI, or the full figure of a soak.

`KVNODE_SOAK=1` (set by `python -m tests.soak`) picks the second. The claim of a test does not
depend on it, only how hard it is tried. Its test file is tests/unit/test_scale.py.
"""

from __future__ import annotations

import os

VARIABLE = "KVNODE_SOAK"


def is_soak() -> bool:
    """Whether full figures are wanted."""
    return os.environ.get(VARIABLE, "") not in ("", "0")


def scaled(ci: int, *, soak: int) -> int:
    """Return how often to try: `ci` times, or `soak` times in a soak."""
    assert ci <= soak
    return soak if is_soak() else ci
