"""The folder of a kit's cluster: what `kvnode serve` reads, and where each node's things are.

    DIR/cluster.toml   members, keyspaces, limits       DIR/<id>/           a node's data
    DIR/cluster.key    the cluster's id and key         DIR/<id>/node.log   what it says
    DIR/faults/<id>/   what its clock and disk are to suffer

Laws: the folder looks as `kvnode up` would have made it, so that other commands find the cluster by
`--data DIR`; a fault is one file, replaced whole.
Tests: tests/unit/client/test_testing_files.py.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LOG = "node.log"
CLOCK_OFFSET = "clock_offset_ms"
SYNC_DELAY = "sync_delay_ms"
FAULTS_VARIABLE = "KVNODE_FAULTS"
"""Tells a node where its faults are. It looks for none unless this is set."""


class KitError(Exception):
    """What was asked of the cluster cannot be done; the text says why."""


@dataclass(frozen=True, slots=True)
class NodeFiles:
    """Where one node is.

    Attributes:
        id: n1 and up.
        port: for clients and peers, on 127.0.0.1.
        folder: of its data, and of its log.
        faults: of what its clock and disk are to suffer.
    """

    id: str
    port: int
    folder: Path
    faults: Path

    @property
    def address(self) -> str:
        """Where clients reach it."""
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """What it says."""
        return self.folder / LOG

    def log_text(self) -> str:
        """Return what it has said; nothing if it never ran."""
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    def wipe(self) -> None:
        """Remove its data, and leave its logs."""
        if not self.folder.exists():
            return
        for path in sorted(self.folder.iterdir()):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif not path.name.startswith(LOG):
                path.unlink()

    def suffer(self, fault: str, amount_ms: float) -> None:
        """Set a fault; 0 ends it."""
        draft = self.faults / f"{fault}.new"
        draft.write_text(f"{amount_ms}\n")
        draft.replace(self.faults / fault)


def make_folder(directory: Path, ports: Sequence[int], settings: str = "") -> dict[str, NodeFiles]:
    """Make a cluster's folder; return its nodes by id.

    Args:
        directory: where; there must be no cluster in it yet.
        ports: of the nodes.
        settings: further text for cluster.toml, such as keyspaces and limits.

    Raises: KitError.
    """
    if (directory / "cluster.toml").exists():
        raise KitError(f"there is a cluster in {directory} already")
    nodes = {
        f"n{number}": NodeFiles(
            f"n{number}",
            port,
            (directory / f"n{number}").absolute(),
            (directory / "faults" / f"n{number}").absolute(),
        )
        for number, port in enumerate(ports, 1)
    }
    for node in nodes.values():
        node.folder.mkdir(parents=True)
        node.faults.mkdir(parents=True)
    _write_key(directory / "cluster.key")
    members = [f'[[node]]\nid = "{n.id}"\naddress = "{n.address}"\n' for n in nodes.values()]
    text = "\n".join(['[cluster]\nname = "kit"\n', *members, settings])
    (directory / "cluster.toml").write_text(text)
    return nodes


def _write_key(path: Path) -> None:
    """Write the file that every node of a cluster needs, readable by its owner alone."""
    born = {"cluster_id": secrets.token_hex(16), "key": secrets.token_hex(32)}
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(json.dumps(born) + "\n")
