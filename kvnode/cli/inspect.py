"""`inspect`: what one stopped node's disk holds of one key.

Decides nothing; reads. Laws: the store is opened read-only and stays as it was; a running node is
left alone, since what it has in memory is not on the disk yet; a damaged record is told as damaged,
never as absent. Held by tests/unit/cli/test_inspect.py. Leaves out what the cluster as a whole
would answer: `get --explain`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from kvnode.cli import terminal
from kvnode.cli.arguments import Arguments, spelled
from kvnode.cli.errors import FAILED, CommandError, UsageError, nearest
from kvnode.cli.local import LocalCluster, LocalNode
from kvnode.core.batch import Family
from kvnode.core.keys import StorageKey, encode_key, partition_of_key
from kvnode.core.record import DamagedRecord, decode
from kvnode.core.versions import Context, Record, Version
from kvnode.storage.engine import open_read_only
from kvnode.storage.folder import read_identity
from kvnode.storage.port import ReadFailure


def inspect(arguments: Arguments) -> int:
    """Print the record of a key as it lies on one node's disk."""
    cluster = LocalCluster.open(arguments.data)
    node = _stopped(cluster, arguments.id)
    key = encode_key(arguments.keyspace, arguments.key)
    data = _stored(node.folder, key)
    if data is None:
        print(f"kvnode: {node.id}'s disk holds nothing under this key", file=sys.stderr)
        return FAILED
    try:
        record = decode(key, data)
    except DamagedRecord as error:
        raise CommandError(f"the record on {node.id}'s disk is damaged: {error}") from error
    bits = cluster.settings.partitions.bit_length() - 1
    print(f"partition  {partition_of_key(key, bits)}")
    print(f"record     {terminal.count(len(data), 'byte')}")
    _show(record, dict(enumerate(cluster.nodes, 1)))
    return 0


def _stopped(cluster: LocalCluster, name: str) -> LocalNode:
    if name not in cluster.nodes:
        have = ", ".join(cluster.nodes)
        raise UsageError(f"no node {name!r} in this cluster ({have}){nearest(name, cluster.nodes)}")
    node = cluster.nodes[name]
    running = node.process()
    if running is not None:
        stop = spelled(f"kill {name} --signal TERM", cluster.directory)
        text = f"{name} is running (pid {running.pid}): `kvnode get --explain` asks it"
        raise CommandError(f"{text}, and `{stop}` stops it")
    return node


def _stored(folder: Path, key: StorageKey) -> bytes | None:
    read_identity(folder)
    store = open_read_only(folder / "store")
    try:
        (found,) = store.multi_get(Family.RECORDS, [key])
    finally:
        store.close()
    if isinstance(found, ReadFailure):
        raise CommandError(f"the disk cannot read this key: {found.reason}")
    return found


def _show(record: Record, names: dict[int, str]) -> None:
    print(f"context    {_context(record.context)}\n")
    columns = ("version", "written", "expires", "kind", "votes of", "value")
    rows = [_row(version, record, names) for version in record.versions]
    terminal.table(columns, rows)


def _row(version: Version, record: Record, names: dict[int, str]) -> list[str]:
    votes = [names.get(v.owner, str(v.owner)) for v in record.votes if v.dot == version.dot]
    return [
        _pair(*version.dot),
        terminal.instant(version.timestamp),
        terminal.instant(version.expires_ms << 16) if version.expires_ms else "never",
        "tombstone" if version.is_tombstone else f"value, {terminal.size(len(version.value))}",
        ", ".join(votes) or "-",
        terminal.printable(version.value)[:60],
    ]


def _context(context: Context) -> str:
    pairs = [*sorted(context.vector.items()), *sorted(context.dots)]
    return ", ".join(_pair(*pair) for pair in pairs) or "nothing"


def _pair(actor: int, counter: int) -> str:
    return f"{actor:016x}:{counter}"
