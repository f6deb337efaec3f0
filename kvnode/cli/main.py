"""`kvnode`: finds the command that was named, hands it its arguments, tells how it ended.

Decides the exit status: 0 done, 1 failed or absent, 2 wrong usage, 130 interrupted. Laws: no
traceback ever reaches the terminal (unless KVNODE_DEBUG=1 asks for it); a reader that goes away and
Ctrl-C are quiet; importing this module imports nothing of the client, the node or rich, since every
command pays for what it imports. Held by tests/unit/cli/test_main.py.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from kvnode.cli.arguments import COMMANDS, Command, parse
from kvnode.cli.errors import FAILED, INTERRUPTED, WRONG_USAGE, UsageError, complain, nearest

_ABOUT = "kvnode: a leaderless, replicated key-value store"


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    if not os.environ.get("KVNODE_DEBUG"):
        # gRPC's own lines on stderr tell a user nothing that our one line does not.
        os.environ["GRPC_VERBOSITY"] = "NONE"
    try:
        return _closed(_run(sys.argv[1:] if words is None else list(words)))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _abandon_stdout()
        return FAILED
    except SystemExit as done:  # argparse, after --help
        return done.code if isinstance(done.code, int) else 0
    except Exception as error:  # noqa: BLE001 (the edge: every failure becomes one line)
        return complain(error)


def _run(words: list[str]) -> int:
    if not words:
        print(_help(), file=sys.stderr)
        return WRONG_USAGE
    name, *rest = words
    if name in {"-h", "--help"}:
        print(_help())
    elif name == "--version":
        print(f"kvnode {_version()}")
    else:
        return _call(_command(name), name, rest)
    return 0


def _command(name: str) -> Command:
    if name in COMMANDS:
        return COMMANDS[name]
    if name.startswith("-"):
        flags = ("--version", "--help")
        hint = nearest(name, flags) or "; flags stand after the command"
        raise UsageError(f"kvnode has no flag {name}{hint} (see `kvnode --help`)")
    raise UsageError(f"no command {name!r}{nearest(name, COMMANDS)} (see `kvnode --help`)")


def _call(command: Command, name: str, words: list[str]) -> int:
    arguments = parse(name, command, words)
    module, _, function = command.handler.partition(":")
    handler = getattr(importlib.import_module(f"kvnode.cli.{module}"), function)
    return int(handler(arguments))


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}} {command.summary}" for name, command in COMMANDS.items()]
    usage = "usage: kvnode COMMAND [ARGUMENTS]     kvnode COMMAND --help     kvnode --version"
    return "\n".join([_ABOUT, "", usage, "", *lines])


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 (slow)

    try:
        return version("kvnode")
    except PackageNotFoundError:
        return "(a checkout, not installed)"


def _closed(status: int) -> int:
    """Flush now: a reader that has gone is then our matter, not the interpreter's."""
    sys.stdout.flush()
    return status


def _abandon_stdout() -> None:
    """Point stdout nowhere, so that its last flush at exit cannot complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
