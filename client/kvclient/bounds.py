"""Every bound of the client, in one place.

Decides how much a client may hold, send and wait for. A bound that is met is answered at once with
a typed error or with waiting that has its own bound; nothing grows without limit.
Tests: tests/unit/client/test_engine.py (those of the engine).
Source: design, sections 3 ("Edges") and 4 (the coalescing rule).
Left out: what a node refuses by itself (values over its limit, its own queues).
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The limits of one client. Sizes are in bytes, times in the unit that ends the name."""

    key_bytes: int = 4096
    """Longest key. Part of the protocol, not a setting."""
    keyspace_bytes: int = 255
    """Longest keyspace's name that is asked for; nodes allow less."""
    value_bytes: int = 60 * MIB
    """Longest value that a message could carry. The node's own limit (1 MiB) comes first."""
    message_bytes: int = 64 * MIB
    """Longest message, either way."""
    timeout_s: float = 3600.0
    """Longest time-out; longer ones are cut to it."""
    ttl_s: float = 3.2e9
    """Longest time to live, a century."""
    operations_in_flight: int = 32_768
    """Unanswered operations of one client; past it `Overloaded`, at once."""
    bytes_in_flight: int = 256 * MIB
    """Keys and values of unanswered operations; past it `Overloaded`, at once."""
    queue_ms: float = 1_000.0
    """While some have waited for so long to leave, more are `Overloaded` too, at once: they would
    only be late. Keep it well below the time-outs."""
    batch_in_flight: int = 1_024
    """Unanswered operations of one `put_many` or `get_many`; the rest of it waits its turn."""
    batch_bytes_in_flight: int = 16 * MIB
    """The same in bytes."""
    frame_operations: int = 512
    """Operations in one message."""
    company_operations: int = 256
    """An operation joins those that are about to leave for another owner of its key rather than go
    alone to the first one, while these are fewer. Higher: fewer and larger messages, and more of
    what begins at one instant is coordinated by one node. 0: always to the first owner."""
    frame_bytes: int = MIB
    """Keys and values in one message; a larger operation travels alone."""
    last_attempt_ms: float = 20.0
    """A put that is certainly nowhere is not sent again within its last so many milliseconds: an
    answer that comes too late would only make it uncertain."""
    bulk_bytes: int = 64 << 10
    """Operations above this travel on a stream of their own: they never delay small ones."""
    flush_ms: float = 4.0
    """Longest wait of an operation for company. Higher: larger messages, later answers."""
    flush_share: float = 0.5
    flush_most_ms: float = 25.0
    """The wait is this share of what answers of the node take just now, if that is longer, up to so
    much: where answers are late the machines are busy, and messages cost more than operations."""
    silence_ms: float = 200.0
    """A node that owes answers and says nothing for so long is suspected."""
    reset_ms: float = 2_000.0
    """A suspected node's connection is made anew after this time without an answer."""
    probe_ms: float = 250.0
    """Time between questions to a suspected node, and how long each may take."""
    tick_ms: float = 10.0
    """Between two looks at slow and silent nodes, while anything is unanswered."""
    reconnect_first_ms: float = 50.0
    reconnect_most_ms: float = 200.0
    """Reconnects back off from the first to the second."""
    nobody_ms: float = 25.0
    """While no node can be asked, each operation looks so often for one. Higher: less work in an
    outage, later answers after it."""
    retry_first_ms: float = 5.0
    retry_most_ms: float = 200.0
    """Retries wait a random time below the first, doubled each time up to the second."""
    avoid_ms: float = 10_000.0
    """For so long a node that cannot reach enough owners of a partition is asked for that partition
    after all others. Higher: fewer refusals in a partition of the network that lasts; once it has
    healed, avoiding costs nothing but a little balance."""
    retry_share: float = 0.1
    """Retries after a refusal, as a share of all operations. Higher: more load when busy."""
    retry_burst: float = 100.0
    """How many such retries may be saved up."""
    retry_scarce_ms: float = 400.0
    """Past that an `Overloaded` is raised at once, and other retries wait this much longer, the
    second time twice as much, and so on up to five times."""
    hedge_share: float = 0.05
    """Operations that are asked of a second node too because the first is slower than usual, as a
    share of all. Higher: shorter tail, more load. 0: none."""
    hedge_burst: float = 10.0
    """How many such may be saved up."""
    hedge_least_ms: float = 20.0
    """Nothing is asked twice before so long, whatever is usual."""
    hedge_rest_ms: float = 1_000.0
    """Nor for so long after a node was overloaded."""
    skew_ms: float = 60_000.0
    """What nodes allow a stamp to be ahead of their clocks (their `max_skew_ms`, as it usually is):
    a time that is further from what two others tell is not believed."""
    seed_stagger_ms: float = 50.0
    """A seed that does not answer for so long gets company from the next."""
    session_keys: int = 10_000
    """Keys whose context a session remembers by itself."""
    session_pairs: int = 65_536
    """(partition, actor) pairs of a session's watermark."""
    session_partition_pairs: int = 256
    """The same for one partition: what one read may carry."""
    session_token_bytes: int = 64 * MIB
    """Longest exported session, unpacked."""
    converge_first_ms: float = 50.0
    converge_most_ms: float = 1_000.0
    """`wait_converged` asks again after the first, then after twice as long each time, up to the
    second; that often, too, it has nodes deliver and compare ahead of their time."""
    conflicts: int = 10_000
    """Conflicts listed at once."""
    acks_remembered: int = 4_096
    """Sets of nodes that acknowledged a write, whose ids are kept at hand."""


BOUNDS = Bounds()
