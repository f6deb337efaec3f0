"""What is written but could still be lost in a crash: the keys that no reply may show yet.

Laws: a key is in here from the turn that wrote it until the log is durable up to the last such
turn. Adding and forgetting cost O(1) for each write; what is held is bounded by what one log sync
takes. Tests: tests/unit/core/test_unsynced.py.
"""

from __future__ import annotations

from collections import deque


class Unsynced:
    """Keys by the last turn that wrote them."""

    __slots__ = ("_order", "_turns")

    def __init__(self) -> None:
        self._turns: dict[bytes, int] = {}
        self._order: deque[tuple[int, bytes]] = deque()

    def add(self, key: bytes, turn: int) -> None:
        """Take note that a turn wrote this key; turns come in order."""
        self._turns[key] = turn
        self._order.append((turn, key))

    def on_synced(self, turn: int) -> None:
        """The log is durable up to and with this turn."""
        order, turns = self._order, self._turns
        while order and order[0][0] <= turn:
            written, key = order.popleft()
            if turns.get(key) == written:
                del turns[key]

    def __contains__(self, key: bytes) -> bool:
        return key in self._turns

    def __len__(self) -> int:
        return len(self._turns)
