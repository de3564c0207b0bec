"""From a verified package to a ready server, and back: load, listen, drain."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from interlock.core.http_server import HttpServer
from interlock.core.lifeline import spare_the_collector
from interlock.model.package import Package
from interlock.serving.batches import listen
from interlock.serving.batching import Batcher
from interlock.serving.door import load
from interlock.serving.rest import ModelDoor
from interlock.serving.standing import Standing

if TYPE_CHECKING:
    from interlock.core.grpc import GrpcServer

FLUSH_SECONDS = 0.05
"""Time for the last answers to leave the socket."""


async def serve(
    package: Package,
    standing: Standing,
    *,
    host: str,
    port: int | None,
    grpc_port: int | None,
    path: Path | None,
    grpc: bool = False,
) -> None:
    """Serve until SIGTERM: REST on `port`, gRPC on `grpc_port`, batches on the Unix socket `path`, REST on `path`.http.

    `grpc`: gRPC on `path`.grpc too.

    Raises:
        Corrupt, RecipeFailed, PredictionFailed: the package does not load, or does not give its golden answers.
        Misconfigured: the address is taken.
        ModelEnded: the model's thread ended.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    batcher = Batcher(load(package), ended)
    door = ModelDoor(batcher, standing)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _settle, ended)
    servers: list[HttpServer | GrpcServer] = []
    if port is not None:
        servers.append(HttpServer(door.handle, host=host, port=port))
    if path is not None:
        servers.append(HttpServer(door.handle, path=path.with_name(path.name + ".http")))
    for server in servers:
        await server.start()
    batches = await listen(path, batcher, standing) if path is not None else None
    if grpc_port is not None or grpc:  # imported here: without it a server starts faster, and stays 20 MB smaller
        from interlock.serving.grpc import grpc_server

        beside = path.with_name(path.name + ".grpc") if path is not None and grpc else None
        rpc = [grpc_server(door, host=host, port=grpc_port)] if grpc_port is not None else []
        rpc += [grpc_server(door, path=beside)] if beside else []
        for one in rpc:
            await one.start()
        servers += rpc
    watching = loop.create_task(standing.watch())
    spare_the_collector()
    sys.stdout.write(f"ready: {package.manifest.model} {package.digest}\n")
    sys.stdout.flush()
    await ended
    watching.cancel()
    door.draining = True
    await asyncio.gather(*(server.stop() for server in servers))
    if batches is not None:
        batches.close()
    await asyncio.to_thread(batcher.close)
    await asyncio.sleep(FLUSH_SECONDS)


def _settle(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
