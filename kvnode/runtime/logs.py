"""A node's log: one line an event, in a file that is rotated and bounded.

A line is an instant (UTC), a level, then a fixed event name and its fields. ERROR means that
someone must act; a peer being down is INFO. Values' bytes are never logged.
Tests: tests/unit/runtime/test_logs.py.
"""

from __future__ import annotations

import logging
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

FILE = "node.log"
_KEPT = 5


class _Formatter(logging.Formatter):
    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"


def begin_logging(folder: Path, *, bytes_max: int, level: int = logging.INFO) -> None:
    """Send the process's log to the folder's file, rotated at `bytes_max`, with five kept."""
    handler = RotatingFileHandler(
        folder / FILE, maxBytes=bytes_max, backupCount=_KEPT, encoding="utf-8"
    )
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # grpc.aio logs every cancelled stream of a peer that died as an error with a traceback.
    logging.getLogger("grpc").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.ERROR)
