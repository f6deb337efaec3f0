"""Settings that differ from run to run, so that rare paths become common.

What it decides: between which values a setting is drawn (tests/sim/generate.py draws), and how
those that are no fields of `Limits` are put in force. Names: a field of `Limits`; "core X", a
constant of the core that no format depends on; "client X", a field of kvclient's bounds; "world X",
of the simulated world.
Laws: `tuned` leaves everything as it found it. Its tests are tests/sim/test_plans.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import struct
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from kvclient.bounds import Bounds

Choices = tuple[float, ...]

LIMITS: dict[str, Choices] = {
    "repair_wait_ms": (1, 10, 200),
    "widen_after_ms": (1, 20, 1_000),
    "hedge_share": (0, 0.5, 1),
    "conflict_wait_ms": (1, 20, 2_000),
    "operations_running": (1, 2, 8),
    "operations_waiting": (0, 2, 20),
    "waiting_target_ms": (1, 50),
    "frame_operations": (1, 2, 16),
    "heartbeat_ms": (50, 500),
    "silence_ms": (300, 3_000),
    "failover_ms": (60, 1_000),
    "hint_bytes": (0, 500, 5_000),
    "hint_age_ms": (1_000, 3_000),
    "hint_rate": (1, 10, 100_000),
    "hint_window": (1, 4),
    "exchange_interval_ms": (500, 2_000, 30_000),
    "exchange_grace_ms": (0, 100, 5_000),
    "exchange_keys_per_s": (5, 50),
    "exchange_window": (1, 3),
    "scrub_bytes_per_s": (0, 1_000, 1 << 24),
    "settle_after_ms": (100, 100, 500),
    "settle_keys_per_s": (1, 10),
    "settle_window": (1, 2),
    "conflict_log_bytes": (0, 300, 3_000),
    "periodic_sync_ms": (5, 2_000),
    "max_skew_ms": (1_000, 10_000),
}

OTHERS: dict[str, Choices] = {
    "core SEEN_INTERVALS_MAX": (1, 2, 8),
    "core OWN_WRITES_MAX": (1, 4),
    "core SETTLING_KEYS_MAX": (1, 2),
    "core TREE_RING": (64, 256),
    "core _LONG_REST_US": (500_000,),
    "core TREE_STEP": (1, 4),
    "core tree_bits": (3, 5, 7),
    "client session_keys": (1, 3),
    "client session_partition_pairs": (1, 4, 16),
    "client silence_ms": (60, 1_000),
    "client reset_ms": (300, 5_000),
    "client retry_burst": (0, 3),
    "client hedge_share": (0, 1),
    "client hedge_least_ms": (2,),
    "world sync_us": (200, 20_000, 60_000, 200_000),
    "world turn_us": (1_000, 5_000),
    "world reorders": (0, 0.1),
    "world delay_us": (100, 10_000, 40_000),
}
"""`world delay_us`: the longest delay of a message; `core tree_bits`: leaves of a tree, as bits."""

LONG = frozenset({"hint_age_ms", "settle_after_ms", "core _LONG_REST_US"})
"""What is usually longer than a run lasts, so that what it rules would hardly ever happen."""

_MODULES = ("kvnode.core.", "tests.sim.")


def client_bounds(knobs: Mapping[str, float]) -> Bounds:
    """Return the bounds of every client."""
    fields = {field.name: field.type for field in dataclasses.fields(Bounds)}
    named = {name.removeprefix("client "): value for name, value in knobs.items()}
    wanted: dict[str, Any] = {
        name: int(value) if fields[name] == "int" else float(value)
        for name, value in named.items()
        if f"client {name}" in knobs
    }
    return Bounds(**wanted)


@contextlib.contextmanager
def tuned(knobs: Mapping[str, float]) -> Iterator[None]:
    """Have the core's constants be as a plan wants them, for as long as the context lasts."""
    constants: dict[str, Any] = {}
    for name, value in knobs.items():
        if name.startswith("core "):
            constants |= _constants(name.removeprefix("core "), int(value))
    modules = [module for name, module in sys.modules.items() if name.startswith(_MODULES)]
    changed = [
        (module, name, vars(module)[name])
        for module in modules
        for name in constants
        if name in vars(module)
    ]
    try:
        for module, name, _ in changed:
            setattr(module, name, constants[name])
        yield
    finally:
        for module, name, value in changed:
            setattr(module, name, value)


def _constants(name: str, value: int) -> dict[str, Any]:
    if name != "tree_bits":
        return {name: value}
    leaves, groups = 1 << value, 1 << value // 2
    return {
        "LEAF_BITS": value,
        "LEAVES": leaves,
        "GROUPS": groups,
        "GROUP_LEAVES": leaves // groups,
        "_ALL": range(leaves),
        "_SPARSE_BELOW": leaves // 2,
        "_DENSE": struct.Struct(f"<{leaves}Q"),
    }
