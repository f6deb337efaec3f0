"""From finished operations to what the caller gets, one by one or as a batch.

Decides when a batch is complete and whether it failed in part. Laws: results are in the order of
the request; a batch never has more under way than its bounds allow, and always something until it
is done.
Tests: tests/unit/client/test_api.py and test_aio.py.
Source: design, section 6.
Left out: waiting, which differs between Client and AsyncClient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from kvclient import codec
from kvclient.bounds import Bounds
from kvclient.errors import KVError, MultipleValues, PartialFailure
from kvclient.operation import Operation, Waiter
from kvclient.request import Key
from kvclient.results import Record, WriteResult
from kvclient.routing import Topology

T = TypeVar("T")


def value_of(operation: Operation) -> bytes | None:
    """Return what a get found. Raises: its error; MultipleValues if there are several."""
    if operation.error is not None:
        raise operation.error
    if operation.detail is not None and (values := codec.live_values(operation)):
        raise MultipleValues(values, operation.seen)
    return operation.value


def record_of(operation: Operation) -> Record | None:
    """Return a get's record, None if the key is absent. Raises: its error."""
    if operation.error is not None:
        raise operation.error
    return codec.record_of(operation)


class AckNames(dict[bytes, tuple[str, ...]]):
    """From acknowledgements to node ids, for one topology; remembers those it has seen. Bounded."""

    def __init__(self, topology: Topology, bounds: Bounds) -> None:
        super().__init__()
        self.topology = topology
        self._most = bounds.acks_remembered
        self._names = {member.number: member.id for member in topology.members}

    def __missing__(self, acked: bytes) -> tuple[str, ...]:
        numbers = codec.acked_numbers(acked)
        ids = tuple(self._names.get(number, f"#{number}") for number in numbers)
        if len(self) < self._most:
            self[acked] = ids
        return ids


def write_of(operation: Operation, names: AckNames) -> WriteResult:
    """Return what a put or delete was answered. Raises: the operation's error."""
    if operation.error is not None:
        raise operation.error
    return WriteResult(operation.seen, names[operation.detail], operation.timestamp)


def all_of(
    operations: Sequence[Operation], keys: Sequence[Key], answer: Callable[[Operation], T]
) -> list[T]:
    """Return the answers in order. Raises: PartialFailure, with all of them, if one is an error."""
    results: list[T] = []
    errors = False
    outcomes: list[T | KVError] = []
    for operation in operations:
        try:
            result = answer(operation)
        except KVError as error:
            errors = True
            outcomes.append(error)
        else:
            results.append(result)
            outcomes.append(result)
    if errors:
        raise PartialFailure(_by_key(keys, outcomes))
    return results


def _by_key(keys: Sequence[Key], outcomes: Iterable[object]) -> dict[Key, object]:
    """A key that was given twice keeps its error, if either is one."""
    results: dict[Key, object] = {}
    for key, outcome in zip(keys, outcomes, strict=True):
        if not isinstance(results.get(key), KVError):
            results[key] = outcome
    return results


class Batch:
    """Waits for many operations and wakes its caller once; feeds them in as others finish.

    Not safe to use from threads: lives in the event loop.
    """

    __slots__ = (
        "_bounds",
        "_bytes",
        "_in_flight",
        "_is_feeding",
        "_next",
        "_submit_all",
        "_waiter",
        "operations",
    )

    def __init__(
        self,
        operations: Sequence[Operation],
        *,
        submit_all: Callable[[Iterable[Operation]], None],
        waiter: Waiter,
        bounds: Bounds,
    ) -> None:
        self.operations = operations
        self._submit_all = submit_all
        self._waiter = waiter
        self._bounds = bounds
        self._next = 0
        self._in_flight = 0
        self._bytes = 0
        self._is_feeding = False

    def begin(self) -> None:
        """Submit the first operations."""
        self._feed()

    def done(self) -> bool:
        """Part of being a Waiter: a batch hears of each of its operations."""
        return False

    def set_result(self, operation: Any, /) -> None:
        """One operation is finished."""
        self._in_flight -= 1
        self._bytes -= operation.size
        if not self._is_feeding and self._in_flight * 2 <= self._bounds.batch_in_flight:
            self._feed()

    def unfinished(self) -> list[Operation]:
        """Return what was submitted and is not finished, and submit no more."""
        begun, self._next = self._next, len(self.operations)
        return [operation for operation in self.operations[:begun] if not operation.is_done]

    def _feed(self) -> None:
        self._is_feeding = True
        while chunk := self._chunk():
            self._submit_all(chunk)
        self._is_feeding = False
        if not self._in_flight and not self._waiter.done():
            self._waiter.set_result(self)

    def _chunk(self) -> Sequence[Operation]:
        """What may begin now, already counted as in flight."""
        bounds, start = self._bounds, self._next
        while self._next < len(self.operations) and self._in_flight < bounds.batch_in_flight:
            operation = self.operations[self._next]
            if self._in_flight and self._bytes + operation.size > bounds.batch_bytes_in_flight:
                break
            operation.waiter = self
            self._next += 1
            self._in_flight += 1
            self._bytes += operation.size
        return self.operations[start : self._next]
