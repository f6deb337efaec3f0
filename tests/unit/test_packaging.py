"""What `pip install .` gives: all three packages, typed, with the wire's own files."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"kvnode": "kvnode", "kvclient": "client/kvclient", "kvproto": "proto/kvproto"}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> frozenset[str]:
    """Return the names in the wheel that an installation is made from."""
    out = tmp_path_factory.mktemp("wheel")
    build = f"from hatchling.build import build_wheel; print(build_wheel({str(out)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(out / done.stdout.strip()) as wheel:
        return frozenset(wheel.namelist())


@pytest.mark.parametrize("package", PACKAGES)
def test_everything_below_a_package_is_packed(package: str, packed: frozenset[str]) -> None:
    source = ROOT / PACKAGES[package]
    files = [path for path in source.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert files
    assert {f"{package}/{path.relative_to(source).as_posix()}" for path in files} <= packed


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_typed(package: str, packed: frozenset[str]) -> None:
    assert f"{package}/py.typed" in packed


def test_the_wire_comes_with_its_definition_and_its_vectors(packed: frozenset[str]) -> None:
    assert "kvproto/token_vectors.json" in packed
    assert any(name.startswith("kvproto/") and name.endswith(".proto") for name in packed)


def test_nothing_but_the_packages_is_installed(packed: frozenset[str]) -> None:
    tops = {name.partition("/")[0] for name in packed}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
