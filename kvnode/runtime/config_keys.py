"""The keys of cluster.toml: what each may be, its unit, its default, and what it does.

Laws: every key is here or a field of `Limits`, and nowhere else; every default is allowed.
Tests: tests/unit/runtime/test_config.py. Leaves out: rules between keys
(kvnode.runtime.config).
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from kvnode.core.bounds import KEYSPACE_NAME_BYTES_MAX, Limits
from kvnode.core.topology import Durability, Resolve
from kvnode.runtime import settings
from kvnode.runtime.settings import Setting

NODES_MAX: Final = 1_000
PARTITIONS_MAX: Final = 65_536
REPLICAS_MAX: Final = 32
TTL_S_MAX: Final = 10 * 365 * 86_400

KEYSPACE_NAME: Final = settings.name(KEYSPACE_NAME_BYTES_MAX)

CLUSTER: Final = (
    Setting(key="name", kind=KEYSPACE_NAME, default="kvnode", doc="What the cluster is called."),
    Setting(
        key="partitions",
        kind=settings.power_of_two(PARTITIONS_MAX),
        default=256,
        unit="partitions",
        doc="Equal slices of the hash space, fixed at birth. At least 20 for each node keep the "
        "load even; more make membership changes finer and every node's bookkeeping larger.",
    ),
)
NODE: Final = (
    Setting(
        key="id",
        kind=settings.NODE_ID,
        doc="The node's name for ever, whatever its address.",
    ),
    Setting(
        key="address",
        kind=settings.ADDRESS,
        doc="host:port for clients and peers; an IPv6 host in brackets. Metrics and health are "
        f"served {settings.HTTP_PORT_OFFSET} ports above.",
    ),
    Setting(
        key="rack",
        kind=KEYSPACE_NAME,
        default="default",
        doc="What fails together. Replicas lie in as many racks as there are.",
    ),
    Setting(
        key="weight",
        kind=settings.number(0.001, 1000),
        default=1.0,
        doc="The node's share of partitions beside the others'. Twice the weight, twice the data.",
    ),
    Setting(
        key="data",
        kind=settings.name(settings.TEXT_BYTES_MAX),
        default=None,
        doc="The node's folder, from the cluster's folder on; without it, the node's id.",
    ),
)
KEYSPACE: Final = (
    Setting(
        key="n",
        kind=settings.whole(1, REPLICAS_MAX),
        default=3,
        unit="replicas",
        doc="Copies of each key. More survive more failures and cost more. Without it, 3, or the "
        "number of nodes if that is less.",
    ),
    Setting(
        key="r",
        kind=settings.whole(1, REPLICAS_MAX),
        default=2,
        unit="replicas",
        doc="Replicas that must answer a read. r + w > n lets reads see every acknowledged write. "
        "Without it, the majority of n.",
    ),
    Setting(
        key="w",
        kind=settings.whole(1, REPLICAS_MAX),
        default=2,
        unit="replicas",
        doc="Replicas that must hold a write durably before it is acknowledged. Without it, the "
        "majority of n.",
    ),
    Setting(
        key="sloppy",
        kind=settings.TRUE_OR_FALSE,
        default=True,
        doc="Whether another node may stand in for an unreachable replica. false: writes and reads "
        "for which too few replicas can be reached fail as unavailable.",
    ),
    Setting(
        key="resolve",
        kind=settings.one_of(Resolve),
        default="majority",
        doc='Which concurrent version wins: that of most replicas, the "newest", or none: '
        '"siblings" returns all to the client.',
    ),
    Setting(
        key="ttl",
        kind=settings.whole(1, TTL_S_MAX),
        default=None,
        unit="seconds",
        doc="How long values live that are written without a ttl of their own. Without it, for "
        "ever.",
    ),
    Setting(
        key="durability",
        kind=settings.one_of(Durability),
        default="fsync",
        doc='"fsync": an acknowledged write is on disk at w replicas. "periodic": it is in their '
        "logs and on disk a moment later; faster, and a power cut may take it back.",
    ),
)


def _limit_setting(each: dataclasses.Field[Any]) -> Setting:
    low, high = each.metadata["low"], each.metadata["high"]
    is_whole = each.type in {"int", int}
    return Setting(
        key=each.name,
        kind=settings.whole(low, high) if is_whole else settings.number(low, high),
        default=each.default,
        unit=each.metadata["unit"],
        doc=each.metadata["doc"],
    )


LIMITS: Final = tuple(_limit_setting(each) for each in dataclasses.fields(Limits))
