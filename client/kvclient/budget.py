"""A budget for requests beyond those that callers asked for.

Laws: over any stretch of time at most `share` of what began plus `most` is spent; what had to be
made beyond that is taken from what could be spent later.
Tests: tests/unit/client/test_budget.py.
Source: design, section 2.3.
"""

from __future__ import annotations


class Budget:
    """Allows extra attempts as a share of the operations that were begun, with some saved up."""

    __slots__ = ("_most", "_share", "_tokens")

    def __init__(self, share: float, most: float) -> None:
        self._share = share
        self._most = most
        self._tokens = most

    def earn(self) -> None:
        """Count an operation that begins."""
        if self._tokens < self._most:
            self._tokens += self._share

    def spend(self) -> bool:
        """Take one attempt out; False if there is none."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def owe(self) -> None:
        """Count one that had to be made although there was none left: later ones go without."""
        self._tokens = max(self._tokens - 1, -self._most)
