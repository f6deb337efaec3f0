"""How gRPC's core is set up: quiet, and with the poller that costs least; imported before gRPC is.

Decides that gRPC prints errors alone, unless the environment says otherwise. Its core would
announce every node that stops ("Got goaway", level INFO) in the middle of a program's output, and
warn at every fork, which this library answers itself.
Law: a variable that is set stays as it is.
Tests: tests/unit/client/test_api.py.
Left out: Python's logging, which is the program's to set up.
"""

from __future__ import annotations

import os

DEFAULTS = {
    "GRPC_VERBOSITY": "ERROR",
    "GRPC_ENABLE_FORK_SUPPORT": "0",
    # A third less CPU a message than gRPC's newer poller: docs/decisions/0007-grpc-poller.md.
    "GRPC_EXPERIMENTS": "-event_engine_client,-event_engine_listener",
}


def apply() -> None:
    """Set what is not set."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


apply()
