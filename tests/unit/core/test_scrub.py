"""The walk over all records: at its rate, slice by slice, and what it finds."""

from __future__ import annotations

import pytest

from kvnode.core.batch import Family
from kvnode.core.keys import StorageKey, encode_key
from kvnode.core.messages import Instant, Outbox, Scan
from kvnode.core.record import encode
from kvnode.core.scrub import (
    FIRST_US,
    PASS_US,
    SCRUB_ID,
    SLICE_BYTES,
    SLICE_KEYS_MAX,
    Scrub,
    is_scrub,
)
from tests.unit.core.builders import NOW, record, version

PER_S = 100_000


class Walk:
    """A scrub over records that a test may change, at instants of its own."""

    def __init__(self, count: int, *, size: int = 100, per_s: int = PER_S) -> None:
        self.found: list[StorageKey] = []
        self.scans: list[tuple[Instant, Scan, int]] = []
        """(when, what was asked, bytes that came)"""
        self.records = dict(sorted(_record(number, size) for number in range(count)))
        self.now = NOW
        self.scrub = Scrub(lambda key, _: self.found.append(key), bytes_per_s=per_s)
        self.scrub.on_time(NOW, Outbox())

    def ask(self) -> Scan | None:
        """Go to the next instant at which there is something to do; return the slice asked for."""
        due = self.scrub.next_wake()
        assert due is not None
        self.now = max(self.now, due)
        out = Outbox()
        self.scrub.on_time(self.now, out)
        return out.scans[0] if out.scans else None

    def answer(self, scan: Scan) -> int:
        pairs: list[tuple[bytes, bytes]] = [
            (key, data)
            for key, data in self.records.items()
            if scan.family is Family.RECORDS and key >= scan.start
        ]
        page = pairs[: scan.limit]
        self.scrub.on_scanned(scan.id, page, self.now)
        return sum(len(key) + len(data) for key, data in page)

    def walk(self, passes: int = 1) -> None:
        while self.scrub.passes < passes:
            scan = self.ask()
            assert scan is not None
            self.scans.append((self.now, scan, self.answer(scan)))

    def spoil(self, at: int) -> StorageKey:
        key = list(self.records)[at]
        data = self.records[key]
        self.records[key] = data[:-1] + bytes([data[-1] ^ 1])
        return key


def _record(number: int, size: int) -> tuple[StorageKey, bytes]:
    key = encode_key("default", b"%d" % number)
    return key, encode(key, record(version("a1", bytes(size), key=key)))


def test_every_damaged_record_is_found_and_no_other() -> None:
    walk = Walk(300)
    spoilt = [walk.spoil(at) for at in (0, 17, 150, 299)]
    walk.walk()
    assert walk.found == spoilt
    assert (walk.scrub.verified, walk.scrub.found) == (300, 4)


def test_a_record_under_another_key_is_damaged() -> None:
    walk = Walk(10)
    first, second = list(walk.records)[:2]
    walk.records[second] = walk.records[first]
    walk.walk()
    assert walk.found == [second]


def test_it_starts_a_while_after_its_node_and_asks_for_records() -> None:
    walk = Walk(1)
    scan = walk.ask()
    assert walk.now == NOW + FIRST_US
    assert scan is not None
    assert (scan.family, scan.start, scan.end) == (Family.RECORDS, b"", None)
    assert is_scrub(scan.id)
    assert not is_scrub(SCRUB_ID >> 1)


@pytest.mark.parametrize("size", [0, 1_000, 100_000])
def test_it_keeps_to_its_rate_and_its_slices_are_short(size: int) -> None:
    walk = Walk(200, size=size)
    walk.walk()
    total = 0
    for (began, _, read), (then, scan, _) in zip(walk.scans, walk.scans[1:], strict=False):
        assert then - began >= 1_000_000 * read // PER_S
        assert scan.limit <= SLICE_KEYS_MAX
        total += read
    assert total > 0
    assert all(read < 2 * SLICE_BYTES for _, _, read in walk.scans[1:])


def test_one_slice_is_under_way_at_a_time_and_a_lost_one_is_asked_for_again() -> None:
    walk = Walk(100)
    first = walk.ask()
    assert first is not None
    out = Outbox()
    walk.scrub.on_time(Instant(walk.now + 5_000_000), out)
    assert out.scans == []
    second = walk.ask()
    assert second is not None
    assert (second.start, second.limit) == (first.start, first.limit)
    walk.answer(first)
    assert walk.scrub.verified == 0, "of an earlier attempt"
    walk.answer(second)
    assert walk.scrub.verified == second.limit


def test_a_slice_that_cannot_be_read_is_no_end() -> None:
    walk = Walk(100)
    scan = walk.ask()
    assert scan is not None
    walk.scrub.on_scanned(scan.id, None, walk.now)
    assert walk.scrub.passes == 0
    again = walk.ask()
    assert again is not None
    assert again.start == scan.start


@pytest.mark.parametrize("count", [0, 40, 16])
def test_a_pass_begins_an_hour_after_the_last_one_began(count: int) -> None:
    walk = Walk(count)
    walk.walk(2)
    begun = [when for when, scan, _ in walk.scans if is_first(scan)]
    assert begun == [NOW + FIRST_US, NOW + FIRST_US + PASS_US]


def test_a_pass_that_takes_longer_than_that_is_followed_by_the_next_at_the_same_rate() -> None:
    walk = Walk(40, per_s=1)
    walk.walk(2)
    begun = [at for at, (_, scan, _) in enumerate(walk.scans) if is_first(scan)]
    last, first_again = walk.scans[begun[1] - 1], walk.scans[begun[1]]
    assert first_again[0] - walk.scans[0][0] > PASS_US
    assert first_again[0] - last[0] == 1


def is_first(scan: Scan) -> bool:
    return scan.start == b"" and scan.family is Family.RECORDS


def test_all_families_are_read_and_records_alone_verified() -> None:
    walk = Walk(5)
    walk.walk()
    assert {scan.family for _, scan, _ in walk.scans} == set(Family)
    assert walk.scrub.verified == 5
    again = walk.ask()
    assert again is not None
    assert is_first(again)
    walk.answer(again)
    other = walk.ask()
    assert other is not None
    assert other.family is not Family.RECORDS
    walk.scrub.on_scanned(other.id, [(b"any", b"thing")], walk.now)
    assert (walk.found, walk.scrub.verified) == ([], 10)


def test_progress_is_how_much_of_the_hash_space_was_seen() -> None:
    walk = Walk(500)
    seen = []
    while walk.scrub.passes == 0:
        seen.append(walk.scrub.progress)
        scan = walk.ask()
        assert scan is not None
        walk.answer(scan)
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, 1)
    assert any(0.3 < each < 0.7 for each in seen)
    assert walk.scrub.progress == 0


def test_a_rate_of_nothing_is_no_scrub() -> None:
    scrub = Scrub(lambda *_: None, bytes_per_s=0)
    out = Outbox()
    scrub.on_time(Instant(NOW + PASS_US), out)
    assert (out.scans, scrub.next_wake()) == ([], None)
