"""`why-not-reaped`: why the marker of a deleted key is still kept, owner by owner.

Decides how the answers of a key's owners are put together. Laws: every owner that answers is shown;
one that does not is named, and the exit status is 1. Held by tests/unit/cli/test_reaped.py. Leaves
out when a marker may go: kvnode.core.reaping.
"""

from __future__ import annotations

from collections.abc import Iterator

from kvnode.cli import target, terminal, wire
from kvnode.cli.arguments import Arguments
from kvnode.cli.errors import CommandError
from kvproto import kv_pb2

_STATES = {
    "none": "keeps nothing of it",
    "value": "it has a value",
    "recent": "its expiry is too recent for every clock to agree",
    "waits": "waits",
    "ready": "goes with the next walk",
    "unreadable": "its record here cannot be read, and is being mended",
}


def why_not_reaped(arguments: Arguments) -> int:
    """Show what each owner of a key waits for before it drops the marker of its deletion."""
    known = wire.topology(target.reachable(arguments))
    if known is None:
        raise CommandError(target.nobody(target.addresses_of(arguments), arguments))
    members = {member.address: member.id for member in known.members}
    request = kv_pb2.WhyNotReapedRequest(keyspace=arguments.keyspace, key=arguments.key)
    parse = kv_pb2.WhyNotReapedResponse.FromString
    answers = wire.ask_all(members, "WhyNotReaped", request, parse)
    said = {members[at]: one for at, one in answers.items() if not isinstance(one, str)}
    for one in answers.values():
        if isinstance(one, str) and one.startswith(("NOT_FOUND", "INVALID_ARGUMENT")):
            raise CommandError(one.partition(": ")[2])
    rows = [row for node, one in said.items() if one.owner for row in _rows(node, one)]
    terminal.table(("owner", "state", "waits for", "why", "lacks"), rows)
    if terminal.is_terminal():
        print(f"\n{_verdict([one.state for one in said.values() if one.owner])}")
    silent = [members[address] for address, one in answers.items() if isinstance(one, str)]
    if silent:
        raise CommandError(f"no answer from {', '.join(silent)}")
    return 0


def _rows(node: str, said: kv_pb2.WhyNotReapedResponse) -> Iterator[list[str]]:
    state = _STATES.get(said.state, said.state)
    if not said.waits_for:
        yield [node, state, "-", "-", "-"]
    for each in said.waits_for:
        yield [node, state, each.node, each.why, ", ".join(each.lacks) or "-"]


def _verdict(states: list[str]) -> str:
    if all(state == "none" for state in states):
        return "no marker is kept: it was reaped, or the key was never written"
    if "value" in states:
        return "there is nothing to reap: the key has a value"
    return "a marker goes once every owner, proven, has seen all that it covers; never by a timer"
