"""`python -m interlock.processes.server`: the control plane. Read-only status over HTTP, the route index, the monitors.

Nothing that serves depends on it: gateways and model servers go on without it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

import msgspec
import uvloop

from interlock.core.errors import InterlockError, MethodNotAllowed, NotFound
from interlock.core.http import Request, Response, error_response, json_response
from interlock.core.http_server import HttpServer
from interlock.core.lifeline import tie_to_parent
from interlock.core.project import Project
from interlock.deploy.status import read_status
from interlock.monitoring.passes import watch_all
from interlock.release.index import index_routes
from interlock.store.database import Database

INDEX_SECONDS = 2.0
log = logging.getLogger("interlock.server")


def main() -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="interlock server", description="The control plane of the project.")
    parser.add_argument("--project", type=Path, default=None)
    options = parser.parse_args()
    tie_to_parent(grace=5.0)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        uvloop.run(_serve(Project.find(options.project)))
    except InterlockError as error:
        sys.stderr.write(f"{error.message}. {error.next}\n")
        return 1
    return 0


async def _serve(project: Project) -> None:
    settings = project.settings()
    database = Database(project.database)
    server = HttpServer(_Door(project).handle, host=settings.serve.host, port=settings.serve.control_port)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await server.start()
    tasks = [
        loop.create_task(_index(project, database)),
        loop.create_task(_monitor(project, database, settings.serve.monitor_seconds)),
    ]
    sys.stdout.write(f"ready: control plane on {settings.serve.host}:{settings.serve.control_port}\n")
    sys.stdout.flush()
    await stop.wait()
    await server.stop()
    for task in tasks:
        task.cancel()
    database.close()


class _Door:
    def __init__(self, project: Project) -> None:
        self.project = project

    async def handle(self, request: Request) -> Response:
        try:
            if request.method not in ("GET", "HEAD"):
                raise MethodNotAllowed("the control plane only reads", allowed="GET, HEAD")
            if request.path in ("/livez", "/readyz"):
                return json_response({"ready": True})
            if request.path in ("/", "/status"):
                return json_response(msgspec.to_builtins(await asyncio.to_thread(read_status, self.project)))
            raise NotFound(f"nothing is served at {request.path}; see /status")
        except InterlockError as error:
            return error_response(error)


async def _index(project: Project, database: Database) -> None:
    while True:
        try:
            await asyncio.to_thread(index_routes, project, database)
        except InterlockError as error:
            log.warning("a route is not indexed: %s", error.message)
        await asyncio.sleep(INDEX_SECONDS)


async def _monitor(project: Project, database: Database, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await asyncio.to_thread(watch_all, project, database)
        except InterlockError as error:
            log.warning("monitors will look again in %s s: %s", seconds, error.message)


if __name__ == "__main__":
    sys.exit(main())
