#!/usr/bin/env python3
"""Generates the code for proto/kvproto/*.proto beside them; `--check` says whether it is fresh.

What it decides: which generators run (messages, their types, gRPC stubs and their types).
Laws: the same .proto files and the same locked tools give the same bytes; a generated file whose
.proto is gone counts as stale and is removed. Its test file is tests/unit/test_generate.py.
It leaves out kvproto's hand-written modules (token.py), which it never touches.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def generate(source: Path, out: Path) -> None:
    """Generate code for the .proto files of `source`/kvproto into `out`/kvproto."""
    protos = sorted(str(path) for path in (source / "kvproto").glob("*.proto"))
    if not protos:
        return
    # mypy-protobuf's generator is looked up beside the interpreter, whatever PATH says.
    plugins = Path(sys.executable).parent
    command = [
        *(sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={source}"),
        *(f"--plugin=protoc-gen-mypy={plugins / 'protoc-gen-mypy'}",),
        *(f"--plugin=protoc-gen-mypy_grpc={plugins / 'protoc-gen-mypy_grpc'}",),
        *(f"--{kind}_out={out}" for kind in ("python", "grpc_python")),
        *(f"--{kind}_out=quiet:{out}" for kind in ("mypy", "mypy_grpc")),
        *protos,
    ]
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit("protoc failed: see above")


def contents(package: Path) -> dict[str, bytes]:
    """Return the generated files of `package` by name."""
    paths = sorted(path for pattern in GENERATED for path in package.glob(pattern))
    return {path.name: path.read_bytes() for path in paths}


def fresh_contents(source: Path) -> dict[str, bytes]:
    """Return what the generated files of `source` should be."""
    with tempfile.TemporaryDirectory() as scratch:
        generate(source, Path(scratch))
        return contents(Path(scratch) / "kvproto")


def stale(source: Path) -> list[str]:
    """Return the names of generated files that are missing, outdated or orphaned."""
    fresh, present = fresh_contents(source), contents(source / "kvproto")
    return sorted(
        name for name in fresh.keys() | present.keys() if fresh.get(name) != present.get(name)
    )


def renew(source: Path) -> None:
    """Make the generated files of `source` fresh."""
    fresh = fresh_contents(source)
    for name in stale(source):
        path = source / "kvproto" / name
        if name in fresh:
            path.write_bytes(fresh[name])
        else:
            path.unlink()


def main(argv: list[str]) -> None:
    """Generate, or check."""
    if argv not in ([], ["--check"]):
        sys.exit("usage: proto/generate.py [--check]")
    if not argv:
        renew(HERE)
        return
    names = stale(HERE)
    if names:
        sys.exit(f"not fresh: {', '.join(names)}; run: python3 dev.py proto")


if __name__ == "__main__":
    main(sys.argv[1:])
