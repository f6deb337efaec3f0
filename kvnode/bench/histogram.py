"""A histogram of latencies, in the manner of HdrHistogram: fixed relative precision, any range.

Decides how a latency is remembered. Laws: a quantile is never below the exact one and at most 0.1 %
above it; merging equals recording everything into one; its JSON form comes back equal; memory is
bounded by the range of the values, not by their number. Its test file is
tests/unit/bench/test_histogram.py.
Source: Gil Tene, HdrHistogram (the layout of buckets). The package of that name on PyPI would bring
pbr and setuptools into the environment of every node, for what these few lines do.
Leaves out correction for coordinated omission: a fixed rate counts from the intended start.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

_EXACT_BITS = 11
_EXACT = 1 << _EXACT_BITS
_HALF = _EXACT >> 1
"""Values below _EXACT have a bucket each; above, every power of two is cut into _HALF buckets."""


def bucket_of(value: int) -> int:
    """Return the bucket of a value that is not negative."""
    shift = max(0, value.bit_length() - _EXACT_BITS)
    return shift * _HALF + (value >> shift)


def highest_in(bucket: int) -> int:
    """Return the greatest value of a bucket."""
    shift = max(0, bucket // _HALF - 1)
    return ((bucket - shift * _HALF + 1) << shift) - 1


class Histogram:
    """Counts of values by bucket. Whole numbers, not negative; the unit is the caller's."""

    __slots__ = ("_counts",)

    def __init__(self, values: Iterable[int] = ()) -> None:
        self._counts: Counter[int] = Counter(map(bucket_of, values))

    @property
    def total(self) -> int:
        """How many values were recorded."""
        return self._counts.total()

    @property
    def highest(self) -> int:
        """The greatest recorded value (0.1 % up), or 0."""
        return highest_in(max(self._counts)) if self._counts else 0

    @property
    def mean(self) -> float:
        """The mean of what was recorded (0.1 % up), or 0."""
        weighed = sum(highest_in(bucket) * count for bucket, count in self._counts.items())
        return weighed / max(1, self.total)

    def record(self, value: int) -> None:
        """Count a value. Cost: some 0.3 us, on the path of every operation."""
        shift = value.bit_length() - _EXACT_BITS
        bucket = shift * _HALF + (value >> shift) if shift > 0 else value
        self._counts[bucket] += 1

    def merge(self, other: Histogram) -> None:
        """Add what the other has recorded."""
        self._counts.update(other._counts)

    def quantile(self, share: float) -> int:
        """Return the least recorded value (0.1 % up) that `share` of all values do not exceed.

        Raises: ValueError, if nothing was recorded. Cost: sorts the buckets.
        """
        if not self._counts:
            raise ValueError("no quantile of nothing")
        wanted = max(1, math.ceil(share * self.total))
        seen = 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= wanted:
                return highest_in(bucket)
        raise ValueError(f"a share is at most 1, not {share}")

    def to_json(self) -> dict[str, int]:
        """Return the counts, by bucket in ascending order."""
        return {str(bucket): self._counts[bucket] for bucket in sorted(self._counts)}

    @classmethod
    def from_json(cls, counts: Mapping[str, int]) -> Histogram:
        """Return the histogram that `to_json` described."""
        made = cls()
        made._counts.update({int(bucket): count for bucket, count in counts.items()})
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self._counts == other._counts

    __hash__ = None  # type: ignore[assignment]  # it changes
