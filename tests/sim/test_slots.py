"""An owner and its stand-ins fill one slot, in each attempt its own; what is unknown counts."""

from __future__ import annotations

from kvnode.core.keys import encode_key
from kvnode.core.messages import ClientPut, Instant, ReplicaWrite, WriteKind
from kvnode.core.record import Encoded
from kvnode.core.topology import Keyspace
from kvnode.core.versions import NOTHING_SEEN
from tests.sim.slots import Slots
from tests.unit.core.builders import stamp, write_id

NAME = encode_key("default", b"k")
OWNERS = (1, 2, 3)
W1 = write_id("a1")


def put(name: str = "a1") -> ClientPut:
    return ClientPut(
        1, NAME, Keyspace(name="default"), 2, Instant(1 << 60), NOTHING_SEEN, False, False,
        name.encode(), write_id(name), stamp(), 0,
    )  # fmt: skip


def attempt(
    slots: Slots,
    coordinator: int,
    number: int,
    *nodes: int,
    kind: WriteKind = WriteKind.WRITE,
    **stand_ins: int,
) -> None:
    """Have a coordinator ask owners, and stand-ins for others (n4=2: node 4 for owner 2)."""
    asked = dict.fromkeys(nodes, 0) | {int(k[1:]): v for k, v in stand_ins.items()}
    for node, owner in asked.items():
        message = ReplicaWrite(number, NAME, Encoded(b""), Instant(1), kind, 0, owner)
        slots.on_message(coordinator, node, message)


def test_owners_fill_a_slot_each() -> None:
    slots = Slots()
    slots.on_put(1, put())
    attempt(slots, 1, 7, 2, 3)
    assert slots.filled(NAME, W1, OWNERS, (1, 2, 3)) == 3
    assert slots.filled(NAME, W1, OWNERS, (2,)) == 1


def test_an_owner_and_its_stand_ins_fill_one() -> None:
    slots = Slots()
    slots.on_put(1, put())
    attempt(slots, 1, 7, 2, 3, n4=2, n5=2)
    assert slots.filled(NAME, W1, OWNERS, (1, 2, 4)) == 2
    assert slots.filled(NAME, W1, OWNERS, (5, 4, 2)) == 1
    assert slots.filled(NAME, W1, OWNERS, (1, 4, 3)) == 3


def test_stand_ins_for_different_owners_fill_theirs() -> None:
    slots = Slots()
    slots.on_put(1, put())
    attempt(slots, 1, 7, 2, 3, n4=2, n5=3)
    assert slots.filled(NAME, W1, OWNERS, (1, 4, 5)) == 3


def test_each_attempt_has_stand_ins_of_its_own() -> None:
    slots = Slots()
    slots.on_put(1, put())
    slots.on_put(2, put())
    attempt(slots, 1, 7, 2, 3, n4=2)
    assert slots.filled(NAME, W1, OWNERS, (2, 4)) == 1
    attempt(slots, 2, 7, 1, 3, kind=WriteKind.REPAIR, n4=1)  # it was superseded there already
    assert slots.filled(NAME, W1, OWNERS, (2, 4)) == 2


def test_what_others_asked_for_another_write_does_not_count() -> None:
    slots = Slots()
    slots.on_put(1, put())
    slots.on_put(2, put("b1"))
    attempt(slots, 1, 7, 2, 3, n4=2)
    attempt(slots, 2, 8, 1, 3, n4=1)
    attempt(slots, 1, 9, kind=WriteKind.HANDOFF, n4=3)
    assert slots.filled(NAME, W1, OWNERS, (2, 4)) == 1


def test_whose_slot_is_not_known_counts() -> None:
    slots = Slots()
    slots.on_put(4, put())
    attempt(slots, 4, 7, 1, 2, 3, n5=1)
    assert slots.filled(NAME, W1, OWNERS, (4, 1, 5)) == 2  # 4 stands in for one that is away
    attempt(slots, 4, 7, n5=2)  # the same number, in another life
    assert slots.filled(NAME, W1, OWNERS, (4, 1, 5)) == 3


def test_of_an_attempt_that_nobody_saw_nothing_is_said() -> None:
    assert Slots().filled(NAME, W1, OWNERS, (1, 4)) == 2
