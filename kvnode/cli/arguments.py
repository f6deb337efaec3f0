"""The words and flags of every command, and what each value must look like.

Decides what is wrong usage. Laws: a wrong word, flag or value is refused before anything is done,
with what was expected and, where something is close, what was probably meant; only the chosen
command's parser is built, and nothing of what carries it out is imported. Held by
tests/unit/cli/test_arguments.py. Leaves out what needs the cluster to judge (an r above n, a
keyspace that does not exist): its nodes refuse that.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from kvnode.cli.errors import UsageError, nearest
from kvnode.cli.readers import (
    address,
    key,
    peer,
    seconds,
    seeds,
    signal_number,
    whole,
)

DEFAULT_DATA = Path(".kvnode")
NODES_MAX = 200
_BASE_PORT = 7001

Parser = argparse.ArgumentParser
Arguments = argparse.Namespace


@dataclass(frozen=True, slots=True)
class Command:
    """One word after `kvnode`."""

    summary: str
    handler: str
    """module:function, imported only when it is called."""
    declare: Callable[[Parser], None]


class _Parser(argparse.ArgumentParser):
    """argparse, with errors as exceptions of ours, told in one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see `{self.prog} --help`)")


def parse(name: str, command: Command, words: Sequence[str]) -> Arguments:
    """Return what `words` say to `command`.

    Raises: UsageError, saying what was expected.
    """
    parser = _Parser(
        prog=f"kvnode {name}",
        description=command.summary,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.declare(parser)
    _refuse_unknown_flags(parser, words)
    arguments, extra = parser.parse_known_args(words)
    if extra:
        parser.error(f"unexpected {extra[0]!r}")
    return arguments


def _refuse_unknown_flags(parser: Parser, words: Sequence[str]) -> None:
    """Tell an unknown flag before anything else: argparse would complain about its value."""
    known = [flag for action in parser._actions for flag in action.option_strings]  # noqa: SLF001 (argparse offers no other way to list them)
    for word in words:
        if word == "--":
            return
        flag = word.partition("=")[0]
        if flag.startswith("--") and " " not in flag and flag not in known:
            raise UsageError(f"{parser.prog} has no flag {flag}{nearest(flag, known)}")


def spelled(words: str, data: Path) -> str:
    """Return the command line of `words` for the cluster in `data`, as one would type it here."""
    return f"kvnode {words}" if data == DEFAULT_DATA else f"kvnode {words} --data {data}"


# ---- flags that several commands share ----------------------------------------------------------


def _local(parser: Parser) -> None:
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, metavar="DIR",
        help="the folder of a cluster on this machine (default: %(default)s)",
    )  # fmt: skip


def _cluster(parser: Parser) -> None:
    _local(parser)
    parser.add_argument(
        "--seeds", type=seeds, metavar="HOST:PORT,…",
        help="nodes to ask, instead of those of --data; one that answers is enough",
    )  # fmt: skip


def _keyspace(parser: Parser) -> None:
    parser.add_argument(
        "--keyspace", default="default", metavar="NAME", help="default: %(default)s"
    )


def _quorum(parser: Parser, letter: str, what: str) -> None:
    parser.add_argument(
        f"--{letter}", type=whole("a whole number of replicas", 1, NODES_MAX), metavar="COUNT",
        help=f"how many replicas must {what} (default: the keyspace's)",
    )  # fmt: skip


def _timeout(parser: Parser, default: float) -> None:
    parser.add_argument(
        "--timeout", type=seconds, default=default, metavar="SECONDS",
        help="give up after this long (default: %(default)s)",
    )  # fmt: skip


def _request(parser: Parser) -> None:
    _cluster(parser)
    _keyspace(parser)
    _timeout(parser, 5.0)
    parser.add_argument("key", type=key, metavar="K", help="1 to 4,096 bytes")


# ---- the commands -------------------------------------------------------------------------------


def _up(parser: Parser) -> None:
    _local(parser)
    parser.add_argument(
        "--nodes", type=whole("a whole number of nodes", 1, NODES_MAX), metavar="N",
        help="make a new cluster of this many nodes (default: ./cluster.toml, else 5 nodes)",
    )  # fmt: skip
    parser.add_argument("--config", type=Path, metavar="F", help="make a new cluster by this file")
    parser.add_argument(
        "--base-port", type=whole("a port", 1, 64_000), metavar="P",
        help=f"node i of a new cluster gets port P+i-1 (default: {_BASE_PORT})",
    )  # fmt: skip
    parser.add_argument("--detach", action="store_true", help="return once all nodes are ready")


def _serve(parser: Parser) -> None:
    parser.add_argument("--node", required=True, metavar="ID", help="which node of the file to be")
    parser.add_argument("--config", type=Path, required=True, metavar="F", help="cluster.toml")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="this node's own folder (default: .kvnode/ID)"
    )
    parser.add_argument(
        "--listen", type=address, metavar="A", help="listen here, not at the node's address"
    )
    parser.add_argument(
        "--peer", type=peer, action="append", default=[], metavar="ID=HOST:PORT",
        help="reach this peer here, not at its address; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--insecure", action="store_true",
        help="allow an address that other machines can reach, though nothing protects it",
    )  # fmt: skip
    parser.add_argument(
        "--restored", action="store_true",
        help="this folder was restored or moved here, and its life elsewhere is over for good",
    )  # fmt: skip


def _status(parser: Parser) -> None:
    _cluster(parser)
    parser.add_argument("--json", action="store_true", help="for programs; the form is stable")


def _node(parser: Parser) -> None:
    _local(parser)
    parser.add_argument("id", metavar="ID", help="a node, such as n1")


def _kill(parser: Parser) -> None:
    _node(parser)
    parser.add_argument(
        "--signal", type=signal_number, default=signal.SIGKILL, metavar="NAME",
        help="KILL (default), TERM, STOP, CONT …",
    )  # fmt: skip


def _get(parser: Parser) -> None:
    _request(parser)
    _quorum(parser, "r", "answer")
    parser.add_argument(
        "--explain", action="store_true", help="show what each replica said and what decided"
    )


def _write(parser: Parser) -> None:
    _request(parser)
    _quorum(parser, "w", "hold the write durably")


def _put(parser: Parser) -> None:
    _write(parser)
    parser.add_argument("value", metavar="V", help="the value; @FILE for a file's; - for stdin")
    parser.add_argument("--ttl", type=seconds, metavar="SECONDS", help="expire after this long")


def _files(parser: Parser) -> None:
    _cluster(parser)
    _keyspace(parser)
    _timeout(parser, 30.0)
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder of files")
    parser.add_argument(
        "--prefix", type=key, default=b"", metavar="P", help="put this before each file's key"
    )
    parser.add_argument(
        "--jobs", type=whole("a whole number", 1, 1024), default=64, metavar="N",
        help="how many requests are in flight at once (default: %(default)s)",
    )  # fmt: skip


def _conflicts(parser: Parser) -> None:
    _cluster(parser)
    parser.add_argument("--keyspace", metavar="NAME", help="only this one (default: all)")
    parser.add_argument(
        "--limit", type=whole("a whole number", 1, 1_000_000), default=1000, metavar="N",
        help="show at most this many of each kind (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--state", choices=("open", "settled"), help="only these (default: both)")


def _hints(parser: Parser) -> None:
    _cluster(parser)
    parser.add_argument("--json", action="store_true", help="for programs; the form is stable")


def _wait_converged(parser: Parser) -> None:
    _cluster(parser)
    _timeout(parser, 60.0)


def _repair(parser: Parser) -> None:
    _cluster(parser)
    parser.add_argument(
        "--partition", type=whole("a partition", 0, 65_535), action="append", default=[],
        metavar="P", help="only this one; may be repeated (default: all)",
    )  # fmt: skip
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--watch", action="store_true", help="begin nothing; show what is going on")
    either.add_argument("--cancel", action="store_true", help="break off what is going on")


def _why_not_reaped(parser: Parser) -> None:
    _cluster(parser)
    _keyspace(parser)
    parser.add_argument("key", type=key, metavar="K", help="1 to 4,096 bytes")


def _inspect(parser: Parser) -> None:
    _node(parser)
    _keyspace(parser)
    parser.add_argument("key", type=key, metavar="K", help="1 to 4,096 bytes")


def _config(parser: Parser) -> None:
    parser.add_argument(
        "--defaults", action="store_true", help="print every setting with unit, default and effect"
    )


def _chaos(parser: Parser) -> None:
    from kvnode.cli.chaos_arguments import declare  # noqa: PLC0415 (it needs what is above)

    declare(parser)


def _bench(parser: Parser) -> None:
    from kvnode.cli.bench_arguments import declare  # noqa: PLC0415 (it needs what is above)

    _cluster(parser)
    _keyspace(parser)
    _quorum(parser, "r", "answer a read")
    _quorum(parser, "w", "hold a write durably")
    declare(parser)


COMMANDS: dict[str, Command] = {
    "up": Command("Start a cluster on this machine, or its missing nodes.", "up:up", _up),
    "down": Command("Stop all nodes of a cluster on this machine.", "up:down", _local),
    "serve": Command("Be one node, until told to stop.", "serve:serve", _serve),
    "status": Command("Show every node: its state, records and disk.", "show:status", _status),
    "ring": Command("Show who owns which part of the hash space.", "show:ring", _cluster),
    "kill": Command("Send a signal to one node.", "up:kill", _kill),
    "start": Command("Start one node again.", "up:start", _node),
    "get": Command("Print a key's value.", "data:get", _get),
    "put": Command("Store a value under a key.", "data:put", _put),
    "delete": Command("Delete a key.", "data:delete", _write),
    "load": Command("Store every file below a folder.", "files:load", _files),
    "verify": Command("Compare a folder with the store, byte by byte.", "files:verify", _files),
    "conflicts": Command("List keys with concurrent versions.", "conflicts:conflicts", _conflicts),
    "hints": Command("Show what nodes keep for others.", "hints:hints", _hints),
    "wait-converged": Command(
        "Wait until no hint and no difference is outstanding.", "hints:wait", _wait_converged
    ),
    "repair": Command("Compare all copies, and mend what differs.", "repair:repair", _repair),
    "why-not-reaped": Command(
        "Say why a deleted key's marker is kept.", "reaped:why_not_reaped", _why_not_reaped
    ),
    "inspect": Command("Show a key as a stopped node's disk has it.", "inspect:inspect", _inspect),
    "chaos": Command("Run a load while faults happen, and judge it.", "chaos:chaos", _chaos),
    "bench": Command("Measure how fast a cluster answers.", "bench:bench", _bench),
    "config": Command("Describe the settings of cluster.toml.", "serve:config", _config),
}
