"""The client works where the node is not installed: with grpcio, protobuf and mmh3 alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NODE_ONLY = ("kvnode", "rocksdict", "uvloop", "rich", "prometheus_client", "sortedcontainers")
ALLOWED = ("grpc", "google", "mmh3", "typing_extensions", "kvclient", "kvproto")
"""typing_extensions comes with grpcio."""
GRPC_LOADS = ("grpc_health", "grpc_reflection", "grpc_tools")
"""`import grpc` imports these itself where they are installed; the client never names them."""

BLOCK = """
import importlib, pkgutil, sys, sysconfig

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"blocked: {{name}}", name=name)

sys.meta_path.insert(0, Absent())
begun_with = set(sys.modules)  # what .pth files of the environment load is not the client's doing
"""

# Every module of the client, not only those that its __init__ needs at once; but for the plugin
# that pytest loads, which has no use without it.
IMPORT_ALL = """
import kvclient
for found in pkgutil.walk_packages(kvclient.__path__, "kvclient."):
    if found.name != "kvclient.testing.fixture":
        importlib.import_module(found.name)
"""

PRINT_FOREIGN = """
installed = sysconfig.get_path("platlib")
files = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
tops = {name.partition(".")[0] for name, file in files.items() if file.startswith(installed)}
tops -= {name.partition(".")[0] for name in begun_with}
print(*sorted(tops - set(%r)))
"""


def isolated(program: str) -> subprocess.CompletedProcess[str]:
    """Run `program` in a fresh interpreter where what only the node needs cannot be imported."""
    return subprocess.run(
        [sys.executable, "-c", BLOCK.format(blocked=NODE_ONLY) + program],
        cwd=ROOT / "client",
        env={"PYTHONPATH": f"{ROOT / 'client'}:{ROOT / 'proto'}"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", NODE_ONLY)
def test_the_block_keeps_out_what_only_the_node_needs(name: str) -> None:
    done = isolated(f"import {name}")
    assert done.returncode == 1
    assert f"blocked: {name}" in done.stderr


def test_every_module_of_the_client_imports_without_the_node() -> None:
    done = isolated(IMPORT_ALL + "print(kvclient.Client, kvclient.AsyncClient)")
    assert done.returncode == 0, done.stderr


def test_the_client_loads_nothing_installed_but_grpcio_protobuf_and_mmh3() -> None:
    done = isolated(IMPORT_ALL + PRINT_FOREIGN % ((*ALLOWED, *GRPC_LOADS),))
    assert (done.stdout.strip(), done.returncode) == ("", 0), done.stderr


def test_what_else_the_client_would_load_is_noticed() -> None:
    done = isolated("import pluggy" + PRINT_FOREIGN % (ALLOWED,))
    assert "pluggy" in done.stdout.split()
