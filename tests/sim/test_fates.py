"""What the watch knows of names is what kvnode.core.twins says of each version."""

from __future__ import annotations

import random

from kvnode.core.hlc import Timestamp
from kvnode.core.keys import encode_key
from kvnode.core.twins import Named, is_behind, named, remember
from kvnode.core.versions import Dot, Version
from tests.sim.stores import Fates
from tests.support.scale import scaled
from tests.support.seeds import derive, run_seed

KEY, OTHER = encode_key("default", b"k"), encode_key("default", b"other")


def write_id(client: int, number: int) -> bytes:
    return client.to_bytes(8, "big") + number.to_bytes(8, "big")


def version(counter: int, write: Named, extension: bytes) -> Version:
    return Version(
        Dot(1, counter), Timestamp(counter), write.write_id, 0, False, write.is_explicit, 0, 0,
        extension, 0, b"",
    )  # fmt: skip


def test_who_has_replaced_a_write_is_found_as_one_by_one() -> None:
    for case in range(scaled(30, soak=1_000)):
        chance = random.Random(derive(run_seed(), f"names of writes {case}"))
        fates = Fates()
        held: list[Version] = []
        names = [
            Named(write_id(client, number), chance.random() < 0.3)
            for client in range(3)
            for number in range(6)
        ]
        for counter in range(1, 12):
            new = chance.choice(names)
            replaced = chance.sample(names, chance.randrange(4))
            older = [each.extension for each in chance.sample(held, min(len(held), 2))]
            held.append(version(counter, new, remember(new, replaced, older)))
            fates.note_version(KEY, held[-1])
            fates.note_version(KEY, chance.choice(held))

        for name in names:
            told = {
                each.dot: each.write_id
                for each in held
                if is_behind(name, named(each), each.extension)
            }
            assert fates.ahead_of(KEY, name) == told
            assert fates.ahead_of(OTHER, name) == {}
