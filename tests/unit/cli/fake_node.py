"""Stands in for `kvnode serve` where only processes, ports and readiness matter.

A file in the data folder changes its ways: `refuse` (says why and exits 3), `stubborn` (does not
obey SIGTERM), `slow` (is ready only once the file is gone).
"""

from __future__ import annotations

import argparse
import http.server
import signal
import socket
import sys
from pathlib import Path
from types import FrameType

from kvnode.runtime import config


def main() -> None:
    parser = argparse.ArgumentParser()
    for flag in ("--node", "--config", "--data"):
        parser.add_argument(flag, required=True)
    arguments = parser.parse_args()
    data = Path(arguments.data)
    if (data / "refuse").exists():
        print("starting\nthe disk is not mine", file=sys.stderr)
        sys.exit(3)
    if (data / "stubborn").exists():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, _leave)
    nodes = config.load(Path(arguments.config)).nodes
    address = next(node.address for node in nodes if node.id == arguments.node)
    _serve(int(address.rpartition(":")[2]), data)


def _serve(port: int, data: Path) -> None:
    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503 if (data / "slow").exists() else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with socket.create_server(("127.0.0.1", port)):
        http.server.HTTPServer(("127.0.0.1", port + 1000), Health).serve_forever()


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main()
