"""`status`, `ring`: what the cluster looks like.

Decides what is put together from the answers of all nodes and from what this machine knows of their
processes. Laws: every member is listed however many are dead; the JSON form keeps its fields. Held
by tests/unit/cli/test_show.py. Leaves out the ring's picture: kvnode/cli/picture.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kvnode.cli import picture, target, terminal, wire
from kvnode.cli.arguments import Arguments
from kvnode.cli.errors import CommandError
from kvnode.cli.local import LocalCluster
from kvproto import kv_pb2

STARTING_S = 10.0
"""A process this young that nobody answers for is starting; an older one is suspect."""
_COLUMNS = (
    "node", "address", "pid", "state", "epoch", "records", "disk", "conflicts", "hints", "unproven",
)  # fmt: skip
"""hints: kept there for other nodes. unproven: partitions of which its answers do not count."""
_RIGHT = "pid,epoch,records,disk,conflicts,hints,unproven"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What is known of one member."""

    id: str
    address: str
    pid: int | None
    state: str
    """up | starting | suspect | down | unproven."""
    status: kv_pb2.Status | None
    """What it says itself."""

    def as_json(self) -> dict[str, object]:
        """Return its entry in `status --json`; null is what only it could tell."""
        said = self.status
        return {
            "id": self.id,
            "address": self.address,
            "pid": self.pid,
            "state": self.state,
            "epoch": None if said is None else said.epoch,
            "records": None if said is None else said.records,
            "bytes": None if said is None else said.bytes,
            "open_conflicts": None if said is None else said.open_conflicts,
            "pending_hints": None if said is None else said.pending_hints,
            "unproven_partitions": None if said is None else said.unproven_partitions,
            "incarnation": None if said is None else f"{said.incarnation:016x}",
            "version": None if said is None else said.version,
            "peers": None if said is None else {peer.node: peer.state for peer in said.peers},
        }

    def as_row(self) -> list[str]:
        """Return its row of the table."""
        said = self.status
        known = ["-"] * 6
        if said is not None:
            counts = (said.open_conflicts, said.pending_hints, said.unproven_partitions)
            records = terminal.count(said.records)
            known = [str(said.epoch), records, terminal.size(said.bytes)]
            known += map(terminal.count, counts)
        return [self.id, self.address, str(self.pid or "-"), self.state, *known]


# ---- status ----------------------------------------------------------------------------------


def status(arguments: Arguments) -> int:
    """Show every node."""
    name, nodes = _by_seeds(arguments) if arguments.seeds else _by_folder(arguments)
    nodes = doubted(nodes)
    epoch = max((node.status.epoch for node in nodes if node.status), default=None)
    if arguments.json:
        listed = [node.as_json() for node in nodes]
        print(json.dumps({"cluster": name, "epoch": epoch, "nodes": listed}, indent=2))
        return 0
    terminal.table(_COLUMNS, [node.as_row() for node in nodes], right=_RIGHT)
    if terminal.is_terminal():
        up = sum(node.state == "up" for node in nodes)
        print(f"\ncluster {name}: {up} of {terminal.count(len(nodes), 'node')} up")
    return 0


def _by_folder(arguments: Arguments) -> tuple[str, list[Node]]:
    cluster = LocalCluster.open(arguments.data)
    answers = wire.statuses(cluster.addresses)
    nodes = []
    for node in cluster.nodes.values():
        said = answers[node.address]
        status = said if isinstance(said, kv_pb2.Status) and said.node == node.id else None
        running = node.process()
        pid = running.pid if running else (status.pid if status else None)
        state = "down" if pid is None else judged(said, running.age_s() if running else 0.0)
        nodes.append(Node(id=node.id, address=node.address, pid=pid, state=state, status=status))
    return cluster.settings.name, nodes


def _by_seeds(arguments: Arguments) -> tuple[str, list[Node]]:
    known = wire.topology(arguments.seeds)
    if known is None:
        raise CommandError(target.nobody(arguments.seeds, arguments))
    answers = wire.statuses(member.address for member in known.members)
    nodes = []
    for member in known.members:
        said = answers[member.address]
        status = said if isinstance(said, kv_pb2.Status) else None
        state = "down" if said == wire.REFUSED else judged(said, STARTING_S)
        pid = status.pid if status else None
        nodes.append(
            Node(id=member.id, address=member.address, pid=pid, state=state, status=status)
        )
    return known.name, nodes


def judged(said: kv_pb2.Status | str, age_s: float) -> str:
    """Return the state of a node whose process lives, from what it says or why it does not."""
    if isinstance(said, kv_pb2.Status):
        return said.state if said.state in {"up", "starting", "unproven"} else "suspect"
    return "starting" if said == wire.REFUSED and age_s < STARTING_S else "suspect"


def doubted(nodes: Sequence[Node]) -> list[Node]:
    """Return the nodes; one that says that it is up, and that no other hears, is suspect.

    Said by one other node alone it may as well be that one's fault.
    """
    told: dict[str, list[str]] = {node.id: [] for node in nodes}
    for node in nodes:
        for peer in node.status.peers if node.status is not None else ():
            told.setdefault(peer.node, []).append(peer.state)
    return [
        replace(node, state="suspect")
        if node.state == "up" and len(told[node.id]) > 1 and set(told[node.id]) == {"down"}
        else node
        for node in nodes
    ]


# ---- ring ------------------------------------------------------------------------------------


def ring(arguments: Arguments) -> int:
    """Show who owns which part of the hash space."""
    known = wire.topology(target.reachable(arguments))
    if known is None:
        raise CommandError(target.nobody(target.addresses_of(arguments), arguments))
    picture.show(picture.ring_of(known))
    return 0
