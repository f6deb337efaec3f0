"""A process of the load generator: asks a store and counts the answers.

    python -m kvnode.bench.worker MODULE:FUNCTION WHERE [--options JSON] [--loop uvloop|asyncio]

Decides how it is told what to do: one JSON object a line on stdin, `{"run": job}` or `{"stop":
...}`; on stdout `{"ready": ...}` once it is connected, in a run `{"so_far": ...}` every second, and
at its end `{"done": ...}`. It ends with its input. Laws: a run that is stopped tells what it
counted; CPU time is the process's own account of the run. Held by tests/unit/bench/test_workers.py.
Leaves out who starts it: kvnode/bench/workers.py.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from kvnode.bench.loops import Run
from kvnode.bench.store import Options, Store, named
from kvnode.bench.workload import Job

TELL_EVERY_S = 1.0
_LINE_MAX = 1 << 20
Tell: TypeAlias = Callable[[dict[str, Any]], None]
Commands: TypeAlias = "asyncio.Queue[Mapping[str, Any] | None]"
"""None is their end."""


async def carry_out(store: Store, job: Job, commands: Commands, tell: Tell) -> None:
    """Do one run, and tell its figures; a command meanwhile, or the end of them, stops it."""
    run = Run(store, job, clock=time.perf_counter_ns)
    before = store.counters()
    cpu_s = time.process_time()
    telling = asyncio.create_task(_tell_so_far(run, tell))
    listening = asyncio.create_task(_stop_when_told(run, commands))
    elapsed_s = await run.run()
    cpu_s = time.process_time() - cpu_s
    for task in (telling, listening):
        task.cancel()
    await asyncio.gather(telling, listening, return_exceptions=True)
    rises = {name: count - before.get(name, 0) for name, count in store.counters().items()}
    figures = {"elapsed_s": elapsed_s, "cpu_s": cpu_s, "client": rises}
    tell({"done": figures | {"tally": run.tally.to_json()}})


async def _tell_so_far(run: Run, tell: Tell) -> None:
    """Say every second what has been done and has failed since the run began."""
    while True:
        await asyncio.sleep(TELL_EVERY_S)
        failed = sum(run.tally.faults.values())
        tell({"so_far": {"done": run.tally.operations, "failed": failed}})


async def _stop_when_told(run: Run, commands: Commands) -> None:
    if await commands.get() is None:
        commands.put_nowait(None)  # whoever comes next is to see the end too
    run.stop()


async def serve(adapter: str, where: str, options: Options) -> None:
    """Connect, and carry out the commands on stdin until it ends."""
    store = await named(adapter)(where, options)
    commands: Commands = asyncio.Queue()
    reading = asyncio.create_task(_read_into(commands))
    try:
        _tell_stdout({"ready": {}})
        while (command := await commands.get()) is not None:
            if "run" in command:
                await carry_out(store, Job(**command["run"]), commands, _tell_stdout)
        await reading
    finally:
        await store.close()


async def _read_into(commands: Commands) -> None:
    reader = asyncio.StreamReader(limit=_LINE_MAX)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        commands.put_nowait(json.loads(line))
    commands.put_nowait(None)


def _tell_stdout(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Be a process of the load generator."""
    parser = argparse.ArgumentParser(prog="kvnode.bench.worker")
    parser.add_argument("adapter")
    parser.add_argument("where")
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    arguments = parser.parse_args()
    serving = serve(arguments.adapter, arguments.where, arguments.options)
    if arguments.loop == "asyncio":
        asyncio.run(serving)
        return
    import uvloop  # noqa: PLC0415 (a client does not need it)

    uvloop.run(serving)


if __name__ == "__main__":
    main()
