"""What clients do: each kind of operation, as calls of a simulated client.

What it decides: nothing; it carries out the operations of a plan.
    put, delete       blind, with what the session has seen
    get
    edit, erase       read, then put or delete with the context of that read, explicitly
    put_over          put with the context of the client's last read of the key, however old
    add               read, then put the union of what was read and one element more
Laws: no two operations write the same value; an operation that names a read which failed ends with
it. Its tests are tests/sim/test_workloads.py. Left out: when and how often (tests/sim/generate.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from kvnode.core.keys import encode_key
from tests.sim.client import Client
from tests.sim.cluster import Cluster
from tests.sim.history import OK, Read, Write
from tests.sim.plan import Operation

_BETWEEN = b","


class Workloads:
    """The operations of one run: those that began, and what became of them."""

    def __init__(self, world: Cluster, clients: Sequence[Client]) -> None:
        self.clients = clients
        """Whom the places in a plan stand for: others may take them meanwhile."""
        self.calls: list[tuple[Operation, Read | Write]] = []
        """Every call that was made, in order; one that reads first makes two."""
        self._world = world
        self._last_read: dict[tuple[int, str, str], Read] = {}

    def begin(self, item: Operation) -> None:
        """Begin an operation."""
        KINDS[item.kind](self, item)

    def outcomes(self) -> Counter[str]:
        """Return how many calls ended how, by kind."""
        return Counter(f"{item.kind} {call.outcome or 'unfinished'}" for item, call in self.calls)

    def check_sets(self, reader: Client) -> None:
        """Assert that every element that was acknowledged is in its set, as a healed cluster has
        it for a session that has seen nothing.

        Only where siblings are merged by clients: elsewhere of two sets that were written at a time
        one wins.
        """
        sets: dict[tuple[str, str], list[Operation]] = {}
        for item, call in self.calls:
            if item.kind == "add" and isinstance(call, Write) and call.outcome == OK:
                sets.setdefault((item.keyspace, item.key), []).append(item)
        for (keyspace, key), items in sorted(sets.items()):
            read = reader.get(key.encode(), keyspace=keyspace)
            name = encode_key(keyspace, key.encode())
            if read.outcome != OK:
                self._world.fail(name, "a healed cluster gives no answer", name="8-healed-serves")
            elements = _elements(read)
            missing = [item.id for item in items if item.id.encode() not in elements]
            if missing:
                told = f"acknowledged elements {missing} are not in {sorted(elements)}"
                self._world.fail(name, told, name="1-set-is-complete")

    # ---- kinds -----------------------------------------------------------------------------

    def _put(self, item: Operation) -> None:
        self._write(item, item.value)

    def _delete(self, item: Operation) -> None:
        self._write(item, None)

    def _get(self, item: Operation) -> None:
        self._read(item, lambda _: None)

    def _edit(self, item: Operation) -> None:
        self._read(item, lambda read: self._write(item, item.value, read))

    def _erase(self, item: Operation) -> None:
        self._read(item, lambda read: self._write(item, None, read))

    def _put_over(self, item: Operation) -> None:
        last = self._last_read.get((item.client, item.keyspace, item.key))
        if last is None:
            self._edit(item)
        else:
            self._write(item, item.value, last)

    def _add(self, item: Operation) -> None:
        def write(read: Read) -> None:
            union = _BETWEEN.join(sorted(_elements(read) | {item.id.encode()}))
            self._write(item, union, read)

        self._read(item, write)

    # ---- calls -----------------------------------------------------------------------------

    def _write(self, item: Operation, value: bytes | None, read: Read | None = None) -> None:
        write = self.clients[item.client].put(
            item.key.encode(),
            value,
            keyspace=item.keyspace,
            at=item.at or None,
            context=read,
            w=item.w,
            ttl_ms=item.ttl_ms,
            timeout_us=1_000 * item.timeout_ms,
            wait=False,
        )
        self.calls.append((item, write))

    def _read(self, item: Operation, then: Callable[[Read], None]) -> None:
        read = self.clients[item.client].get(
            item.key.encode(),
            keyspace=item.keyspace,
            at=item.at or None,
            r=item.r,
            explain=item.explain,
            timeout_us=1_000 * item.timeout_ms,
            wait=False,
            then=partial(self._after_read, item, then),
        )
        self.calls.append((item, read))

    def _after_read(self, item: Operation, then: Callable[[Read], None], read: Read) -> None:
        if read.outcome == OK:
            self._last_read[item.client, item.keyspace, item.key] = read
            then(read)


def _elements(read: Read) -> set[bytes]:
    """Return the union of all sets that a read tells of."""
    values = [value for value in read.values if value]
    return {element for value in values for element in value.split(_BETWEEN)}


KINDS: dict[str, Callable[[Workloads, Operation], None]] = {
    "put": Workloads._put,
    "delete": Workloads._delete,
    "get": Workloads._get,
    "edit": Workloads._edit,
    "erase": Workloads._erase,
    "put_over": Workloads._put_over,
    "add": Workloads._add,
}
