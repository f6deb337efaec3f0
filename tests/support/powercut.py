"""What a power cut leaves of a store: each log cut to its length at the last completed sync.

A killed process loses nothing that reached the page cache, synced or not, so `kill -9` cannot show
a missing sync. Run the node with a sync journal, copy its store (killed or running), cut the copy,
and open that: an acknowledged write that is not there was acknowledged before it was durable.
"""

from __future__ import annotations

import os
from pathlib import Path


def synced_lengths(journal: Path) -> dict[str, int]:
    """Return how many bytes of each log were durable, by the lines of a sync journal."""
    if not journal.exists():
        return {}
    text = journal.read_text(encoding="ascii")
    # A kill in the middle of the last line leaves it without its end.
    complete = text[: text.rfind("\n") + 1]
    lengths: dict[str, int] = {}
    for line in complete.splitlines():
        name, length = line.split()
        lengths[name] = max(lengths.get(name, 0), int(length))
    return lengths


def cut_power(store: Path, journal: Path) -> int:
    """Take from the store folder `store`, a copy, what no sync covered; return the bytes taken.

    Table files stay: RocksDB syncs each before its manifest names it.
    """
    lengths = synced_lengths(journal)
    lost = 0
    for log in sorted(store.glob("*.log")):
        size = log.stat().st_size
        kept = min(size, lengths.get(log.name, 0))
        os.truncate(log, kept)
        lost += size - kept
    return lost
