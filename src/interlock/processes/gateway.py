"""`python -m interlock.processes.gateway`: one gateway worker. Several share one port (SO_REUSEPORT), a process each."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

import msgspec
import uvloop

from interlock.core.clock import SystemClock, now_us
from interlock.core.errors import InterlockError, Refused
from interlock.core.http import is_loopback
from interlock.core.http_server import HttpServer
from interlock.core.ids import uuid7
from interlock.core.lifeline import spare_the_collector, tie_to_parent
from interlock.core.project import Project
from interlock.core.settings import ServeSettings
from interlock.gateway.endpoints import Endpoints
from interlock.gateway.grpc import grpc_server
from interlock.gateway.metrics import Metrics
from interlock.gateway.plane import Plane
from interlock.gateway.rest import GatewayDoor
from interlock.predlog.journal import Journal
from interlock.predlog.record import Heartbeat
from interlock.registry.gateways import GatewayStatus, withdraw, write
from interlock.registry.packages import PackageStore
from interlock.registry.routes import RouteStore
from interlock.registry.tokens import FILE, Access

HEARTBEAT_SECONDS = 10.0
ACKNOWLEDGE_SECONDS = 0.1
ACCESS_SECONDS = 0.5


def main() -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="interlock gateway", description="One gateway worker of the project.")
    parser.add_argument("--project", type=Path, default=None)
    parser.add_argument("--slot", type=int, default=0, help="which of the project's gateway workers this is")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--grpc-port", type=int)
    options = parser.parse_args()
    tie_to_parent(grace=10.0)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        project = Project.find(options.project)
        serve = project.settings().serve
        given = {"host": options.host, "gateway_port": options.port, "grpc_port": options.grpc_port}
        serve = msgspec.structs.replace(serve, **{name: value for name, value in given.items() if value is not None})
        uvloop.run(_serve(project, serve, options.slot))
    except InterlockError as error:
        sys.stderr.write(f"{error.message}. {error.next}\n")
        return 1
    return 0


async def _serve(project: Project, serve: ServeSettings, slot: int) -> None:
    identity = uuid7()
    endpoints = Endpoints(
        routes=RouteStore(project.routes),
        packages=PackageStore(project.packages),
        approvals=project.approvals,
        trust=project.trust,
        fingerprint=project.root_fingerprint(),
        sockets=project.make_sockets(),
        seen=project.gateways / f"{slot}.seen.json",
        environment=os.environ,
        clock=SystemClock(),
    )
    journal = Journal(project.journals, identity, fsync=serve.fsync, reserve=serve.reserve_mb << 20)
    metrics = Metrics()
    access = Access(
        project.state / FILE,
        project.trust,
        project.root_fingerprint(),
        SystemClock(),
        loopback=is_loopback(serve.host),
        anonymous=serve.anonymous,
    )
    access.refresh()
    door = GatewayDoor(Plane(endpoints, journal, metrics, access), metrics)
    rest = HttpServer(door.handle, host=serve.host, port=serve.gateway_port)
    rpc = grpc_server(door, serve.host, serve.grpc_port)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    endpoints.refresh()
    tasks = [
        loop.create_task(endpoints.watch()),
        loop.create_task(_watch_access(access)),
        loop.create_task(_heartbeat(journal, endpoints)),
        loop.create_task(_acknowledge(project.gateways, slot, str(identity), endpoints)),
    ]
    for task in tasks:
        task.add_done_callback(lambda done: stop.set())  # one that ends early has failed: leave, and be started again
    await endpoints.meet()
    await rest.start()
    await rpc.start()
    spare_the_collector()
    door.loading = False
    sys.stdout.write(f"ready: gateway {slot} on {serve.host}:{serve.gateway_port}, gRPC on {serve.grpc_port}\n")
    sys.stdout.flush()
    await stop.wait()
    door.draining = True
    await asyncio.gather(rest.stop(), rpc.stop())
    failed = [task.exception() for task in tasks if task.done() and not task.cancelled()]
    for task in tasks:
        task.cancel()
    if endpoints.last_seq:
        journal.append(Heartbeat(str(identity), now_us(), dict(endpoints.last_seq), True))
    await journal.close()
    withdraw(project.gateways, slot, os.getpid())
    for error in failed:
        if error is not None:
            raise error


async def _watch_access(access: Access) -> None:
    while True:
        await asyncio.sleep(ACCESS_SECONDS)
        try:
            access.refresh()
        except (Refused, OSError) as error:
            logging.getLogger("interlock.gateway").error(
                "the list of API keys is refused, the one before holds: %s", error
            )


async def _heartbeat(journal: Journal, endpoints: Endpoints) -> None:
    said: dict[str, int] = {}
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        if endpoints.last_seq != said:
            said = dict(endpoints.last_seq)
            journal.append(Heartbeat(str(journal.gateway), now_us(), said, False))


async def _acknowledge(folder: Path, slot: int, identity: str, endpoints: Endpoints) -> None:
    """Write the status file whenever it says something new, so that whoever changed a route sees it obeyed."""
    said: object = None
    while True:
        statuses = endpoints.statuses()
        if statuses != said:
            status = GatewayStatus(
                slot=slot, pid=os.getpid(), gateway=identity, at=endpoints.written_at(), endpoints=statuses
            )
            await asyncio.to_thread(write, folder, status)
            said = statuses
        await asyncio.sleep(ACKNOWLEDGE_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
