"""Who may be a node: what is remembered of each life, and when a later claimant must go.

A *place* is where a life's data is: a digest of the machine's id and the folder's real path, then
words for people. One place has one life at a time (the folder is locked), so a claim from the known
place is a restart, or an older folder restored there. A claim from another place is a move if its
start number is higher than any known; else it is a copy, or a backup put elsewhere, and nobody but
its operator can know that the life before it is over (`--restored`).

Laws: a life is remembered durably before the next link of its peer, with its place and the moment
when it began; whoever is refused for good is told who holds the identity, and what to do.
Tests: tests/unit/runtime/test_claims.py, tests/cluster/test_identity.py. Source: failures 7 and 9.
Left out: proof against copies on machines that share an id and a path (cloned images). There, a
second life is noticed only while the first one answers.
"""

from __future__ import annotations

import hashlib
import socket
import struct
import time
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError

from kvnode.core.topology import NodeId
from kvnode.runtime.wire import channel_options
from kvproto import kv_pb2, peer_pb2

_MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_DIGEST_DIGITS = 32
_PLACE_CHARS_MAX = 512
_NUMBERS = struct.Struct("<QQ")
_CLAIMED = struct.Struct("<Q")
_PROBE_MS = 1_000


class Life(NamedTuple):
    """One life of a node, as others remember it."""

    start: int
    incarnation: int
    claimed_ms: int = 0
    place: str = ""
    """Empty: it did not say."""

    def pack(self) -> bytes:
        """Return it as it is stored."""
        numbers = _NUMBERS.pack(self.start, self.incarnation)
        return numbers + _CLAIMED.pack(self.claimed_ms) + self.place.encode()


NOBODY = Life(0, 0)


def unpack(data: bytes) -> Life:
    """Return the life that was stored; what it did not say yet is empty."""
    start, incarnation = _NUMBERS.unpack_from(data)
    if len(data) < _NUMBERS.size + _CLAIMED.size:
        return Life(start, incarnation)
    (claimed_ms,) = _CLAIMED.unpack_from(data, _NUMBERS.size)
    place = data[_NUMBERS.size + _CLAIMED.size :].decode("utf-8", "replace")
    return Life(start, incarnation, claimed_ms, place)


def claim_of(hello: peer_pb2.Hello) -> Life:
    """Return the life that says hello."""
    place = hello.place[:_PLACE_CHARS_MAX]
    return Life(hello.start_number, hello.incarnation, hello.claimed_ms, place)


def place_of(folder: Path, *, machine_ids: tuple[Path, ...] = _MACHINE_IDS) -> str:
    """Return the place of a data folder on this machine."""
    host = socket.gethostname()
    machine = next((path.read_text().strip() for path in machine_ids if path.exists()), host)
    real = folder.resolve()
    digest = hashlib.sha256(f"{machine}\0{real}".encode("utf-8", "surrogateescape")).hexdigest()
    words = f"{host}:{real}".encode("utf-8", "replace").decode()
    return f"{digest[:_DIGEST_DIGITS]} {words}"[:_PLACE_CHARS_MAX]


def is_elsewhere(one: str, other: str) -> bool:
    """Say whether two places differ; who does not say where it is may be anywhere."""
    return bool(one and other) and one[:_DIGEST_DIGITS] != other[:_DIGEST_DIGITS]


def judge(node: str, known: Life, hello: peer_pb2.Hello) -> str:
    """Return why a claimant must go for good, by what is remembered; empty: it need not."""
    claim = claim_of(hello)
    if (
        hello.restored
        or claim.incarnation == known.incarnation
        or claim.start > known.start
        or not is_elsewhere(claim.place, known.place)
    ):
        return ""
    return (
        f"{node} is held by a life at {_words(known.place)} (start {known.start}, incarnation "
        f"{known.incarnation:016x}, since {_moment(known.claimed_ms)}); this one, at "
        f"{_words(claim.place)}, is only start {claim.start}: a copy or a backup of its folder. "
        "If that life is over for good, start this one with --restored; if not, do not start it"
    )


def question(node: str, known: Life, hello: peer_pb2.Hello, *, is_beside: bool) -> str | None:
    """Say whether it is to be asked who answers at a claimant's address.

    Args:
        node: whose identity is claimed.
        known: its newest life that is remembered.
        hello: of the claimant.
        is_beside: another life of it is linked here.

    Returns:
        None: there is no need, let it in. Else why it must go if nobody answers; empty: it may
        come in then.
    """
    if hello.incarnation == known.incarnation:
        return None
    why = judge(node, known, hello)
    return why if why or is_beside or is_elsewhere(hello.place, known.place) else None


def refuse_beside(node: str, known: Life, alive: int, address: str) -> str:
    """Return what a claimant is told while `alive` answers at the node's address."""
    where = f" at {_words(known.place)}" if known.incarnation == alive and known.place else ""
    since = f", start {known.start}, since {_moment(known.claimed_ms)}" if where else ""
    return (
        f"{node} is alive as incarnation {alive:016x}{where}, answering at {address}{since}: this "
        "is a copy of its data folder. Stop that one first; --restored does not help while it lives"
    )


async def who_answers(address: str, node: NodeId) -> int:
    """Return the incarnation of `node` that answers at an address; 0 if none does within 1 s.

    Over a connection of its own that is made now: nothing that a dead life left under way counts.
    """
    options = channel_options(reconnect_ms=200, connect_ms=_PROBE_MS)
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        ask: Any = channel.unary_unary("/kvnode.v1.Cluster/GetStatus")
        try:
            data = await ask(b"", timeout=_PROBE_MS / 1_000)
            status = kv_pb2.Status.FromString(data)
        except (grpc.aio.AioRpcError, grpc.aio.BaseError, DecodeError):
            return 0
    return int(status.incarnation) if status.node == node else 0


def _words(place: str) -> str:
    return place[_DIGEST_DIGITS + 1 :] or "an unknown place"


def _moment(claimed_ms: int) -> str:
    if not claimed_ms:
        return "an unknown time"
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(claimed_ms / 1_000))
