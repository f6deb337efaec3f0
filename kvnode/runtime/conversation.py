"""One accepted stream: hearing and speaking at the same time, and how the two end together.

gRPC leaves a write that is cancelled halfway under way, and the status that should end the stream
then waits for ever. So here the last write ends by itself, or the stream's end is not told.

Laws: when one side ends, so does the other; what either raises is raised as it is, once nothing is
being written any more; that the other side is gone is no error.
Tests: tests/cluster/test_bad_input.py, tests/cluster/test_bad_peers.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import grpc

_LAST_WRITE_S = 2.0
"""Who does not read the answers is not waited for any longer."""


class Gone(Exception):
    """The other side has ended the stream."""


class Conversation:
    """Reads and writes of one stream."""

    def __init__(self, context: Any) -> None:
        """Converse over a servicer's context (whose stubs know no raw bytes)."""
        self._context = context

    async def read(self) -> bytes | None:
        """Return the next message, None after the last. Raises: Gone."""
        try:
            data = await self._context.read()
        except Exception as exc:
            raise Gone from exc
        if data is grpc.aio.EOF:
            return None
        assert isinstance(data, bytes)
        return data

    async def write(self, frame: bytes) -> None:
        """Write a message; one at a time. Raises: Gone."""
        try:
            await self._context.write(frame)
        except Exception as exc:
            raise Gone from exc

    async def run(
        self,
        *,
        hear: Coroutine[Any, Any, None],
        speak: Coroutine[Any, Any, None],
        hush: Callable[[], None],
    ) -> None:
        """Hear and speak until one of them ends; raise what it raised.

        Args:
            hear: reads until the other side has said all.
            speak: writes until it is hushed.
            hush: lets `speak` end after the message that it is writing.
        """
        tasks = (asyncio.create_task(hear), asyncio.create_task(speak))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            hush()
            tasks[0].cancel()
            await asyncio.wait(tasks, timeout=_LAST_WRITE_S)
        finally:
            for task in tasks:
                task.cancel()
            found = await asyncio.gather(*tasks, return_exceptions=True)
        for error in found:
            if isinstance(error, Exception) and not isinstance(error, Gone):
                raise error
