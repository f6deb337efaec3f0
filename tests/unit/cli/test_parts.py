"""The format of loaded files: nothing is mistaken for anything else."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvnode.cli import parts
from kvnode.cli.parts import BadManifest, Manifest
from kvnode.core.bounds import KEY_BYTES_MAX

MANIFESTS = st.builds(
    Manifest,
    size=st.integers(1, 10_000_000),
    part_bytes=st.integers(1_000, 2**20),
    digest=st.binary(min_size=32, max_size=32),
)


@given(st.binary() | st.binary().map(parts.MARK.__add__))
@example(b"")
@example(Manifest(size=1, part_bytes=1, digest=bytes(32)).encoded())
@example(parts.whole(parts.MARK))
def test_whatever_a_file_holds_comes_back_as_its_bytes(data: bytes) -> None:
    assert parts.split(parts.whole(data)) == data


@given(MANIFESTS)
def test_a_manifest_comes_back_as_it_was(manifest: Manifest) -> None:
    assert parts.split(manifest.encoded()) == manifest


@given(MANIFESTS, st.binary(min_size=1, max_size=40))
def test_there_is_a_key_for_each_part_and_none_can_be_a_path(
    manifest: Manifest, key: bytes
) -> None:
    keys = list(manifest.keys(key))
    assert len(set(keys)) == len(keys) == manifest.count
    assert (manifest.count - 1) * manifest.part_bytes < manifest.size
    assert manifest.size <= manifest.count * manifest.part_bytes
    assert all(key.startswith(b"\0") and len(key) < KEY_BYTES_MAX for key in keys)


def test_two_files_and_two_contents_share_no_part() -> None:
    one = Manifest(size=9, part_bytes=3, digest=b"a" * 32)
    other = Manifest(size=9, part_bytes=3, digest=b"b" * 32)
    names = [set(one.keys(b"x")), set(one.keys(b"y")), set(other.keys(b"x"))]
    assert len(set.union(*names)) == 9


def test_a_part_is_known_by_its_exact_key() -> None:
    """A change of the format would make what was loaded before unreadable."""
    manifest = Manifest(size=2, part_bytes=1, digest=bytes(range(32)))
    assert list(manifest.keys(b"a/b"))[1].hex() == PART_KEY
    assert manifest.encoded().hex() == MANIFEST


PART_KEY = (
    "006b766e6f64652e70617274002a03204279fa98071374f323"
    "c47cd47e698b1f66f7975a2f1196fb010a74884a00000001"
)
MANIFEST = (
    "006b766e6f64652e7061727473000100000000000000020000000100000002000102030405060708"
    "090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
)


@pytest.mark.parametrize(
    "value",
    [
        parts.MARK,
        parts.MARK + b"other\0",
        Manifest(size=1, part_bytes=1, digest=bytes(32)).encoded() + b"x",
        Manifest(size=1, part_bytes=1, digest=bytes(32)).encoded()[:-1],
        Manifest(size=1, part_bytes=1, digest=bytes(32)).encoded().replace(b"\x01", b"\x02", 1),
        parts.MARK + b"parts\0" + bytes.fromhex("01" + "00" * 16) + bytes(32),
        parts.MARK
        + b"parts\0"
        + bytes.fromhex("01" + "00" * 7 + "05" + "00000001" * 2)
        + bytes(32),
    ],
)
def test_what_only_looks_like_a_manifest_is_refused(value: bytes) -> None:
    with pytest.raises(BadManifest):
        parts.split(value)
