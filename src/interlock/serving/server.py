"""From a verified package to a ready server, and back: load, listen, drain."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from interlock.core.http import HttpServer
from interlock.model.package import Package
from interlock.serving.batches import listen
from interlock.serving.batching import Batcher
from interlock.serving.door import load
from interlock.serving.rest import ModelDoor

FLUSH_SECONDS = 0.05
"""Time for the last answers to leave the socket."""


async def serve(package: Package, approved: str, *, host: str, port: int | None, path: Path | None) -> None:
    """Serve until SIGTERM: REST on `port`, batches on the Unix socket `path` and REST on `path`.http.

    Raises:
        Corrupt: the package does not give its golden answers.
        Misconfigured: the address is taken.
    """
    batcher = Batcher(load(package))
    door = ModelDoor(batcher, approved)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    servers = []
    if port is not None:
        servers.append(HttpServer(door.handle, host=host, port=port))
    if path is not None:
        servers.append(HttpServer(door.handle, path=path.with_name(path.name + ".http")))
    for server in servers:
        await server.start()
    batches = await listen(path, batcher) if path is not None else None
    sys.stdout.write(f"ready: {package.manifest.model} {package.digest}\n")
    sys.stdout.flush()
    await stop.wait()
    door.draining = True
    for server in servers:
        await server.stop()
    if batches is not None:
        batches.close()
    await asyncio.to_thread(batcher.close)
    await asyncio.sleep(FLUSH_SECONDS)
