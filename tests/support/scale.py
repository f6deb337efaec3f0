"""How much of a test runs: enough for CI, or the full figure of a soak.

`KVNODE_SOAK=1` (set by `python -m tests.soak`) picks the second. The claim of a test does not
depend on it, only how hard it is tried. `KVNODE_SOAK_SHARE` (its `--share`) shortens what lasts
long, for a machine that is not free for so long. Its test file is tests/unit/test_scale.py.
"""

from __future__ import annotations

import os

VARIABLE = "KVNODE_SOAK"
SHARE = "KVNODE_SOAK_SHARE"


def is_soak() -> bool:
    """Whether full figures are wanted."""
    return os.environ.get(VARIABLE, "") not in ("", "0")


def scaled(ci: int, *, soak: int) -> int:
    """Return how often to try: `ci` times, or `soak` times in a soak."""
    assert ci <= soak
    return soak if is_soak() else ci


def lasting(ci_s: int, *, soak_s: int) -> int:
    """Return for how many seconds to try: as `scaled`, or that share of the full figure."""
    full_s = scaled(ci_s, soak=soak_s)
    return max(ci_s, round(full_s * float(os.environ.get(SHARE, "1"))))
