"""Every bound of a node, in one place.

`Limits` holds those that an operator may set under `[limits]` in cluster.toml; the constants
below are part of a format or of the store's meaning and cannot be set. A queue, map or buffer
that takes its size from anywhere else is a bug (invariant 9 of the design).

Test: tests/unit/core/test_bounds.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

KEY_BYTES_MAX = 4_096
"""A key, partition part and sort part together."""

KEYSPACE_NAME_BYTES_MAX = 64

WRITE_ID_BYTES = 16

CONTEXT_ENTRIES_MAX = 512
"""(actor, counter) pairs in one context. One entry appears for each life of a node that has
coordinated a write of the key, so a longer context is forged or broken, not merely old."""

SIBLINGS_MAX = 128
"""Survivors of one key. Only explicit contexts that never cover anything come near it."""

RECORD_BYTES_MAX = 32 << 20
"""Values of all siblings together: a record travels whole, in one message."""

VOTES_MAX = 1_024

WATERMARK_ENTRIES_MAX = 512

SEEN_INTERVALS_MAX = 64
"""Runs of counters remembered above a floor, for each (partition, actor). Forgetting a run is
safe: the floor then waits for an exchange."""

TREE_RING = 8_192
"""Entries in the ring of the hash trees' changes: one a turn. A tree's snapshot (at most 8 KiB) is
written once in half a ring, so a longer ring writes less and takes longer to load at a start."""

TREE_STEP = 64
"""Changes for which a turn takes one more place of that ring: so its bytes are bounded."""

DAMAGED_KEYS_MAX = 4_096
"""Damaged keys that are remembered; the next scrub finds what is forgotten."""

DISPUTED_KEYS_MAX = 1_024
"""Disputed keys that are remembered; more are noticed again by the next exchange or read."""

OWN_WRITES_MAX = 65_536
"""Keys of which a stand-in remembers what it wrote itself. Past it, contexts get longer."""

SETTLING_KEYS_MAX = 4_096
"""Conflicts that a node watches at a time until they may be settled; others come after them."""

LOGGED_NAMES_MAX = 4_096
"""Names of logged entries that a node remembers, so that one that is logged again counts once."""

FRAME_OPERATIONS_MAX = 4_096
"""Operations in one frame that a node accepts; its own frames hold at most `frame_operations`."""

FLUSH_SHARE = 0.5
FLUSH_MS_MOST = 25.0
"""Company is worth waiting for this share of what an answer takes just now, and no longer than so
long: where answers are late the machine is busy, and messages cost it more than operations."""

TURN_OPERATIONS = 512
"""After so many a turn takes no further event: during a turn a node neither hears nor speaks, and
one that is silent for 200 ms is given up. More would hardly be cheaper for each."""

OVERLOADED_RETRY_MS = 20
"""After how long a client is to come again that met a bound on what may be in progress."""

SILENT_MS = 100
"""How long a read or a write waits for silent nodes alone, when nobody else is left to ask. They
are given up after a second; by then a client could have asked another coordinator, which may
reach others."""

CLIENT_TIMEOUT_MS_MAX = 600_000
"""Deadlines beyond ten minutes are capped, not refused."""

EXPIRES_MS_MAX = (1 << 64) - 1
"""The last instant that a record's format can name; later ones count as this."""


def _limit(default: float, *, unit: str, low: float, high: float, doc: str) -> Any:
    return field(default=default, metadata={"unit": unit, "low": low, "high": high, "doc": doc})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The settable bounds and times of a node, `[limits]` in cluster.toml."""

    value_bytes: int = _limit(
        1 << 20,
        unit="bytes",
        low=1,
        high=16 << 20,
        doc="Largest value. Raising it makes one operation hold memory and links for longer.",
    )
    timeout_ms: int = _limit(
        5_000,
        unit="ms",
        low=10,
        high=CLIENT_TIMEOUT_MS_MAX,
        doc="Deadline of a request that names none.",
    )
    max_skew_ms: int = _limit(
        60_000,
        unit="ms",
        low=100,
        high=3_600_000,
        doc="A client's write stamped further ahead than this is refused, and no frame raises a "
        "node's clock beyond it. A node that differs by more from most of its reachable peers "
        "stops coordinating.",
    )
    repair_wait_ms: int = _limit(
        50,
        unit="ms",
        low=0,
        high=10_000,
        doc="How long a read waits for stale replicas to be mended before it answers. 0: never "
        "wait, and give up monotonic quorum reads.",
    )
    widen_after_ms: int = _limit(
        100,
        unit="ms",
        low=1,
        high=60_000,
        doc="A read asks one more owner when those it asked take longer than usual, and after this "
        "long in any case, if `hedge_share` allows it. Lower: less tail latency, more load.",
    )
    hedge_share: float = _limit(
        0.05,
        unit="share",
        low=0,
        high=1,
        doc="Extra requests that reads may spend on owners that are later than usual, as a share "
        "of all reads. Higher: less tail latency, more load. 0: wait for them.",
    )
    conflict_wait_ms: int = _limit(
        300,
        unit="ms",
        low=1,
        high=60_000,
        doc="How long a read of concurrent versions waits for silent owners before it answers "
        "provisionally.",
    )
    operations_in_flight: int = _limit(
        65_536,
        unit="operations",
        low=16,
        high=1 << 22,
        doc="Operations that one node coordinates at a time; beyond it clients get Overloaded.",
    )
    operations_running: int = _limit(
        1_024,
        unit="operations",
        low=1,
        high=1 << 20,
        doc="Clients' operations that a node works on at a time; others wait. Higher: larger "
        "batches, and each takes longer. Past about a thousand nothing more is done a second.",
    )
    operations_waiting: int = _limit(
        32_768,
        unit="operations",
        low=0,
        high=1 << 20,
        doc="Operations that wait for their turn at a node; one client may hold half of what is "
        "free. Beyond it they get Overloaded at once.",
    )
    waiting_target_ms: int = _limit(
        500,
        unit="ms",
        low=1,
        high=60_000,
        doc="While what waits would take longer than this, for longer than this, a node lets in "
        "only what it can begin within it. Higher: larger bursts are taken; under overload all "
        "wait longer. Keep it well below the time-outs of clients.",
    )
    bulk_running: int = _limit(
        16,
        unit="operations",
        low=1,
        high=65_536,
        doc="Writes of values above `bulk_bytes` that a node works on at a time while there are no "
        "small operations (else it is one at a time); as many times 64 wait.",
    )
    operations_per_client: int = _limit(
        16_384,
        unit="operations",
        low=1,
        high=1 << 20,
        doc="Unanswered operations of one client stream; beyond it that client gets Overloaded.",
    )
    client_bytes: int = _limit(
        128 << 20,
        unit="bytes",
        low=1 << 20,
        high=1 << 40,
        doc="Frames of one client stream that are not answered yet; beyond it that client gets "
        "Overloaded. Counted by the frame, and given back as its operations are answered.",
    )
    client_beat_ms: int = _limit(
        50,
        unit="ms",
        low=5,
        high=1_000,
        doc="A client that waits for an answer hears from its node in every second of these "
        "periods at least. Higher: fewer frames; above 80 clients may take a busy node for dead.",
    )
    client_streams: int = _limit(
        1_024,
        unit="streams",
        low=1,
        high=65_536,
        doc="Pipeline streams that one node serves; one more is refused.",
    )
    outbox_bytes: int = _limit(
        64 << 20,
        unit="bytes",
        low=1 << 20,
        high=1 << 32,
        doc="Unsent bytes towards one peer or one client; beyond it that peer counts as "
        "unreachable for new operations, and that client's stream is ended.",
    )
    frame_operations: int = _limit(
        1_024,
        unit="operations",
        low=1,
        high=FRAME_OPERATIONS_MAX,
        doc="Operations in one frame that this node sends.",
    )
    frame_bytes: int = _limit(
        4 << 20,
        unit="bytes",
        low=64 << 10,
        high=32 << 20,
        doc="Payload of one frame that this node sends; a larger value travels alone.",
    )
    bulk_bytes: int = _limit(
        64 << 10,
        unit="bytes",
        low=1 << 10,
        high=16 << 20,
        doc="Values above this travel on the bulk stream, so that they never delay small ones.",
    )
    flush_after_ms: float = _limit(
        4,
        unit="ms",
        low=0,
        high=100,
        doc="How long an operation may wait in an outbox for company, or half as long as answers "
        "take on the stream just now, up to 25 ms, if that is longer. It leaves at once when the "
        "outbox holds half of all that is in flight.",
    )
    heartbeat_ms: int = _limit(
        200,
        unit="ms",
        low=10,
        high=10_000,
        doc="Between heartbeats on an idle link. Lower: silence is noticed sooner, more frames.",
    )
    silence_ms: int = _limit(
        1_000,
        unit="ms",
        low=50,
        high=60_000,
        doc="A peer from which no answer came for this long counts as unreachable; on a link that "
        "often loses or delays frames up to 1.75 times as long.",
    )
    failover_ms: int = _limit(
        200,
        unit="ms",
        low=10,
        high=60_000,
        doc="A peer that owes answers and says nothing for this long (more on a link that is often "
        "late) is gone around at once. Lower: pauses cost less, more requests are sent twice.",
    )
    reconnect_ms: int = _limit(
        200,
        unit="ms",
        low=10,
        high=200,
        doc="Longest pause between two attempts to reach a peer.",
    )
    hint_bytes: int = _limit(
        1 << 30,
        unit="bytes",
        low=0,
        high=1 << 44,
        doc="Hints that this node keeps for owners that are away. Full: it stands in for nobody, "
        "and what the owners miss is left to anti-entropy. 0: no hints.",
    )
    hint_age_ms: int = _limit(
        10_800_000,
        unit="ms",
        low=1_000,
        high=1 << 40,
        doc="After this long a hint is given up, once w owners are found to hold it.",
    )
    hint_rate: int = _limit(
        2_000,
        unit="hints/s",
        low=1,
        high=1_000_000,
        doc="Hints that this node delivers in a second while it also serves clients; an idle node "
        "delivers four times as many.",
    )
    hint_window: int = _limit(
        128,
        unit="hints",
        low=1,
        high=4_096,
        doc="Hints on their way to one owner at a time; a quarter of it while clients are served.",
    )
    exchange_interval_ms: int = _limit(
        10_000,
        unit="ms",
        low=100,
        high=86_400_000,
        doc="Between two comparisons of all partitions with one peer. Lower: what hints and reads "
        "did not mend is found sooner; one line of some 30 bytes for each partition each time.",
    )
    exchange_grace_ms: int = _limit(
        1_000,
        unit="ms",
        low=0,
        high=60_000,
        doc="How long keys must differ without a change before they are mended, so that writes "
        "under way are left alone. Lower: sooner equal, more needless repairs under load.",
    )
    exchange_keys_per_s: int = _limit(
        2_000,
        unit="keys/s",
        low=1,
        high=1_000_000,
        doc="Keys that one node mends in a second for exchanges that it asked for. Higher: sooner "
        "equal after an absence, and slower clients meanwhile.",
    )
    exchange_window: int = _limit(
        128,
        unit="keys",
        low=1,
        high=65_536,
        doc="Keys that one node mends at a time for exchanges that it asked for.",
    )
    scrub_bytes_per_s: int = _limit(
        1 << 20,
        unit="bytes/s",
        low=0,
        high=1 << 40,
        doc="Records that are read in the background to verify their checksums, and the blocks of "
        "the disk under them. Higher: rot is found sooner, more reads of the disk. 0: never.",
    )
    settle_after_ms: int = _limit(
        10_000,
        unit="ms",
        low=100,
        high=86_400_000,
        doc="How long all owners must report the same concurrent versions and votes before the "
        "losers go to the conflict log. Keep it above the deadlines of clients: a write that is "
        "under way for longer may still bring a vote that could have decided otherwise.",
    )
    settle_keys_per_s: int = _limit(
        500,
        unit="keys/s",
        low=1,
        high=1_000_000,
        doc="Open conflicts that one node looks at in a second; a quarter while clients are "
        "served. Higher: sooner settled after many conflicts, and slower clients meanwhile.",
    )
    settle_window: int = _limit(
        32,
        unit="keys",
        low=1,
        high=1_024,
        doc="Conflicts that one node is settling at a time. Each may hold a whole record in "
        "memory, as many times as it has owners that differ.",
    )
    conflict_log_ms: int = _limit(
        604_800_000,
        unit="ms",
        low=60_000,
        high=1 << 40,
        doc="How long a version that lost a conflict can be looked up: seven days.",
    )
    conflict_log_bytes: int = _limit(
        256 << 20,
        unit="bytes",
        low=0,
        high=1 << 44,
        doc="Versions that one node keeps in its conflict log. Full: no conflict of its keys is "
        "settled until entries grow old; nothing is lost. 0: none is ever settled.",
    )
    drain_ms: int = _limit(
        5_000,
        unit="ms",
        low=0,
        high=600_000,
        doc="How long a stopping node waits for what is in flight.",
    )
    periodic_sync_ms: int = _limit(
        200,
        unit="ms",
        low=1,
        high=60_000,
        doc='Between syncs of the log for keyspaces with durability = "periodic": what a power '
        "cut may cost them.",
    )
    explain_bytes: int = _limit(
        1 << 20,
        unit="bytes",
        low=1 << 10,
        high=16 << 20,
        doc="Largest answer that carries siblings; further siblings are listed without values.",
    )
    log_bytes: int = _limit(
        16 << 20,
        unit="bytes",
        low=64 << 10,
        high=1 << 32,
        doc="Size at which a node's log file is rotated; five are kept.",
    )
    block_cache_bytes: int = _limit(
        64 << 20,
        unit="bytes",
        low=1 << 20,
        high=1 << 40,
        doc="Memory for blocks of the store that were read recently.",
    )
