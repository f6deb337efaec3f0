"""cluster.toml: what a cluster is at its birth, and the limits of its nodes.

Decides whether a configuration can be a cluster, and writes one out. Laws: what `render` writes
`load` reads back as the same value; the keyspace `default` always exists; quorums fit their n, and
every n the number of nodes. Tests: tests/unit/runtime/test_config.py.
Leaves out: reading and locating values (kvnode.runtime.settings), the keys
(kvnode.runtime.config_keys), the identity that a cluster gets at birth.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

from kvnode.core.bounds import Limits
from kvnode.core.topology import Durability, Keyspace, Member, NodeId, Resolve, Topology
from kvnode.runtime import settings
from kvnode.runtime.config_keys import (
    CLUSTER,
    KEYSPACE,
    KEYSPACE_NAME,
    LIMITS,
    NODE,
    NODES_MAX,
)
from kvnode.runtime.settings import ConfigError, Setting, Source

__all__ = [
    "ClusterConfig",
    "ConfigError",
    "NodeConfig",
    "default_config",
    "load",
    "parse",
    "render",
    "render_defaults",
    "topology_at_birth",
]

DEFAULT_KEYSPACE: Final = "default"
DEFAULT_PORT: Final = 7_001
DEFAULT_NODES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """One [[node]]."""

    id: str
    address: str
    rack: str = "default"
    weight: float = 1.0
    data: str | None = None
    """The node's folder; a relative one begins at the cluster's. None: the node's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """A cluster.toml that can be used."""

    name: str
    partitions: int
    nodes: tuple[NodeConfig, ...]
    """In the order of the file, which numbers them."""
    keyspaces: tuple[Keyspace, ...]
    """`default` first, then in the order of the file."""
    limits: Limits
    warnings: tuple[str, ...] = field(default=(), compare=False)
    """What is allowed but perhaps not meant, one line each."""


def load(path: Path) -> ClusterConfig:
    """Return the configuration in a file. Raises: ConfigError, with file, line and reason."""
    return _checked(Source.read(path))


def parse(text: str, file: str = "cluster.toml") -> ClusterConfig:
    """Return the configuration that a file's text holds. Raises: ConfigError."""
    return _checked(Source.parse(text, file))


def default_config(
    nodes: int = DEFAULT_NODES, base_port: int = DEFAULT_PORT, name: str = "kvnode"
) -> ClusterConfig:
    """Return a cluster of `nodes` on this machine, at consecutive ports. Raises: ConfigError."""
    if not 1 <= nodes <= NODES_MAX:
        raise ConfigError(f"the number of nodes must be from 1 to {NODES_MAX}, not {nodes}")
    highest = settings.PORT_MAX - nodes + 1
    if not 1 <= base_port <= highest:
        raise ConfigError(
            f"the first port of {nodes} nodes must be from 1 to {highest}, not {base_port}"
        )
    blocks = (
        f'[[node]]\nid = "n{i + 1}"\naddress = "127.0.0.1:{base_port + i}"\n' for i in range(nodes)
    )
    return parse(f"[cluster]\nname = {_quoted(name)}\n" + "".join(blocks), "default configuration")


def topology_at_birth(config: ClusterConfig, cluster_id: bytes) -> Topology:
    """Return the first topology: nodes get their numbers in the order of the file, from 1."""
    members = [
        Member(
            id=NodeId(node.id),
            number=number,
            address=node.address,
            rack=node.rack,
            weight=node.weight,
        )
        for number, node in enumerate(config.nodes, 1)
    ]
    return Topology.at_birth(
        cluster_id=cluster_id,
        name=config.name,
        partitions=config.partitions,
        members=members,
        keyspaces=config.keyspaces,
    )


# --- reading --------------------------------------------------------------------------------------


def _checked(source: Source) -> ClusterConfig:
    tables = ("cluster", "node", "keyspace", "limits")
    source.refuse_unknown(source.data, tables, path=(), label="top level")
    cluster = source.settings(
        source.data.get("cluster", {}), CLUSTER, path=("cluster",), label="[cluster]"
    )
    nodes = _nodes(source)
    keyspaces = _keyspaces(source, len(nodes))
    limits = source.settings(
        source.data.get("limits", {}), LIMITS, path=("limits",), label="[limits]"
    )
    return ClusterConfig(
        name=cluster["name"],
        partitions=cluster["partitions"],
        nodes=nodes,
        keyspaces=keyspaces,
        limits=Limits(**limits),
        warnings=tuple(_warnings(keyspaces)),
    )


def _nodes(source: Source) -> tuple[NodeConfig, ...]:
    tables = source.data.get("node", [])
    if not isinstance(tables, list):
        raise source.error("node is a list: write [[node]], once for each node", ("node",))
    if not 1 <= len(tables) <= NODES_MAX:
        raise source.error(
            f"a cluster has 1 to {NODES_MAX} nodes, each a [[node]], not {len(tables)}"
        )
    nodes = tuple(
        NodeConfig(**source.settings(table, NODE, path=("node", at), label=_node_label(table, at)))
        for at, table in enumerate(tables)
    )
    _refuse_twins(source, "id", [node.id for node in nodes])
    _refuse_twins(source, "address", [node.address.lower() for node in nodes])
    return nodes


def _node_label(table: object, at: int) -> str:
    """Return how errors call a node: by its id if it has one, else by its place."""
    given = table.get("id") if isinstance(table, dict) else None
    return f"node {given}" if settings.NODE_ID.allows(given) else f"node {at + 1} of the list"


def _refuse_twins(source: Source, key: str, values: Iterable[str]) -> None:
    first: dict[str, int] = {}
    for at, value in enumerate(values):
        earlier = first.setdefault(value, at)
        if earlier != at:
            line = source.line(("node", earlier), key)
            where = f"in line {line}" if line else f"at node {earlier + 1} of the list"
            text = f'two nodes have the {key} "{value}": it stands here and {where}'
            raise source.error(text, ("node", at), key)


def _keyspaces(source: Source, nodes: int) -> tuple[Keyspace, ...]:
    tables = source.data.get("keyspace", {})
    named = isinstance(tables, dict) and all(isinstance(t, dict) for t in tables.values())
    if not named:
        raise source.error("keyspaces have names: write [keyspace.NAME]", ("keyspace",))
    tables = {DEFAULT_KEYSPACE: {}} | tables
    return tuple(_keyspace(source, name, table, nodes) for name, table in tables.items())


def _keyspace(source: Source, name: str, table: Mapping[str, Any], nodes: int) -> Keyspace:
    path, label = ("keyspace", name), f"keyspace {name}"
    if not KEYSPACE_NAME.allows(name):
        text = f"a keyspace's name must be {KEYSPACE_NAME.words}, not {settings.shown(name)}"
        raise source.error(text, path)
    found = source.settings(table, KEYSPACE, path=path, label=label)
    n = found["n"] = table.get("n", min(3, nodes))
    if n > nodes:
        raise source.error(f"{label}: n is {n}, more than the number of nodes, {nodes}", path, "n")
    for key in ("r", "w"):
        found[key] = table.get(key, n // 2 + 1)
        if found[key] > n:
            raise source.error(f"{label}: {key} is {found[key]}, more than its n, {n}", path, key)
    found["ttl_s"] = found.pop("ttl")
    found["resolve"] = Resolve(found["resolve"])
    found["durability"] = Durability(found["durability"])
    return Keyspace(name=name, **found)


def _warnings(keyspaces: Iterable[Keyspace]) -> Iterator[str]:
    for each in keyspaces:
        if each.r + each.w <= each.n:
            yield (
                f"keyspace {each.name}: r + w is {each.r + each.w}, not more than n, {each.n}: "
                "a read may miss the newest acknowledged write"
            )


# --- writing --------------------------------------------------------------------------------------


def render(config: ClusterConfig) -> str:
    """Return the text of a cluster.toml for this configuration; defaults of limits left out."""
    blocks = [
        _block("[cluster]", {"name": config.name, "partitions": config.partitions}),
        *[_block("[[node]]", dataclasses.asdict(node)) for node in config.nodes],
        *[_block(f"[keyspace.{_bare(k.name)}]", _keyspace_values(k)) for k in config.keyspaces],
    ]
    usual, limits = dataclasses.asdict(Limits()), dataclasses.asdict(config.limits)
    changed = {key: value for key, value in limits.items() if value != usual[key]}
    return "\n".join([*blocks, _block("[limits]", changed)] if changed else blocks)


def _keyspace_values(keyspace: Keyspace) -> dict[str, object]:
    values = dataclasses.asdict(keyspace)
    del values["name"]
    values["ttl"] = values.pop("ttl_s")
    return values


def _block(header: str, values: Mapping[str, object]) -> str:
    lines = [f"{key} = {_quoted(value)}" for key, value in values.items() if value is not None]
    return "\n".join([header, *lines, ""])


def _quoted(value: object) -> str:
    # The strings of JSON are strings of TOML, and so are its numbers and truths.
    return json.dumps(value, ensure_ascii=False)


def _bare(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _quoted(name)


def render_defaults() -> str:
    """Return a cluster.toml that sets what it must, with every other key as a comment.

    Each key has its doc, unit, range and default above it. The text can be used as it is.
    """
    config = default_config()
    lines = [
        "# Every setting of cluster.toml. A line that begins with #key shows the default.",
        *_described("[cluster]", CLUSTER),
        *_described("[[node]]", NODE, dataclasses.asdict(config.nodes[0])),
    ]
    for node in config.nodes[1:]:
        lines += ["", "[[node]]", f"id = {_quoted(node.id)}", f"address = {_quoted(node.address)}"]
    lines += _described("[keyspace.default]", KEYSPACE)
    lines += _described("[limits]", LIMITS)
    return "\n".join(lines) + "\n"


def _described(
    header: str, allowed: Iterable[Setting], values: Mapping[str, object] | None = None
) -> Iterator[str]:
    yield from ("", header)
    for each in allowed:
        yield from (f"# {line}" for line in wrap(each.doc, 98, break_on_hyphens=False))
        unit = f" Unit: {each.unit}." if each.unit else ""
        fact = f"It is {each.kind.words}.{unit} Default: {_default(each)}."
        yield from (f"# {line}" for line in wrap(fact, 98, break_on_hyphens=False))
        if each.default is settings.REQUIRED:
            yield f"{each.key} = {_quoted((values or {})[each.key])}"
        elif each.default is not None:
            yield f"#{each.key} = {_quoted(each.default)}"


def _default(setting: Setting) -> str:
    if setting.default in (settings.REQUIRED, None):
        return "none, it must be given" if setting.default else "none"
    return _quoted(setting.default)
