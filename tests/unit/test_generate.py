"""Claims about proto/generate.py: when generated code counts as fresh."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "proto" / "generate.py"
PROTO = 'syntax = "proto3";\npackage probe;\nmessage %s { bytes key = 1; }\n'


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """Load the script, which belongs to no package."""
    spec = importlib.util.spec_from_file_location("generate", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "kvproto").mkdir()
    (tmp_path / "kvproto" / "probe.proto").write_text(PROTO % "Probe")
    return tmp_path


def test_what_was_just_generated_is_fresh(generate: ModuleType, source: Path) -> None:
    names = ["probe_pb2.py", "probe_pb2.pyi", "probe_pb2_grpc.py", "probe_pb2_grpc.pyi"]
    assert generate.stale(source) == names
    generate.renew(source)
    assert generate.stale(source) == []


def test_a_changed_proto_or_an_edited_result_is_stale(generate: ModuleType, source: Path) -> None:
    generate.renew(source)
    (source / "kvproto" / "probe.proto").write_text(PROTO % "Renamed")
    assert "probe_pb2.py" in generate.stale(source)
    generate.renew(source)
    (source / "kvproto" / "probe_pb2_grpc.py").write_text("# edited by hand\n")
    assert generate.stale(source) == ["probe_pb2_grpc.py"]


def test_code_of_a_proto_that_is_gone_is_stale_and_removed(
    generate: ModuleType, source: Path
) -> None:
    generate.renew(source)
    (source / "kvproto" / "token.py").write_text("kept = True\n")
    (source / "kvproto" / "probe.proto").unlink()
    assert "probe_pb2.py" in generate.stale(source)
    generate.renew(source)
    assert [path.name for path in (source / "kvproto").iterdir()] == ["token.py"]


def test_a_broken_proto_stops_it(generate: ModuleType, source: Path) -> None:
    (source / "kvproto" / "probe.proto").write_text("message {")
    with pytest.raises(SystemExit, match="protoc failed"):
        generate.stale(source)
