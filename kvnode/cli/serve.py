"""`kvnode serve` and `kvnode config`: thin doors to the runtime.

Decides where a node's data is when nobody says. Imports as little as it can: five of these start
at once on `kvnode up`, and how soon they are ready is felt. Held by tests/unit/cli/test_serve.py.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from kvnode.cli.arguments import DEFAULT_DATA, Arguments
from kvnode.cli.errors import UsageError


def serve(arguments: Arguments) -> NoReturn:
    """Be one node until told to stop."""
    from kvnode.runtime.serve import ServeOptions, run  # noqa: PLC0415 (slow)

    options = ServeOptions(
        node=arguments.node,
        config=arguments.config,
        data=arguments.data or DEFAULT_DATA / arguments.node,
        listen=arguments.listen,
        peers=dict(arguments.peer),
        insecure=arguments.insecure,
        restored=arguments.restored,
    )
    _gone(run(options))


def _gone(status: int) -> NoReturn:
    """End the process now: everything is durable and told.

    gRPC's threads can keep an interpreter from ending: of ten nodes that stopped cleanly after a
    load, one hung for good (grpcio 1.85).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def config(arguments: Arguments) -> int:
    """Print every setting of cluster.toml with its unit, default and effect."""
    if not arguments.defaults:
        raise UsageError("kvnode config needs --defaults: what it prints is a cluster.toml")
    from kvnode.runtime.config import render_defaults  # noqa: PLC0415 (slow)

    print(render_defaults(), end="")
    return 0
