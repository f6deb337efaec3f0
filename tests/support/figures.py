"""What a test measured: printed, and handed to the soak, which keeps it with the date.

Law: what is told is never part of a claim; a test that tells nothing and one that tells much pass
alike. `KVNODE_FIGURES` (set by `python -m tests.soak`) names the file that figures are added to.
Its test file is tests/unit/test_soak.py.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "KVNODE_FIGURES"


def tell(what: str, **figures: object) -> None:
    """Tell the figures of one test; `what` says which of its forms they belong to."""
    said = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items())
    line = f"{what}: {said}"
    print(line)
    if name := os.environ.get(VARIABLE):
        with Path(name).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
