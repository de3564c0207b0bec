"""`python -m interlock.processes.model_server`: one verified package behind REST and batches.

Refused or failed: exit 1, one JSON line `{"code", "message", "next"}` on stderr, no port opened.
"""

from __future__ import annotations

import os

for _pool in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ.setdefault(_pool, os.environ.get("INTERLOCK_MODEL_THREADS", "1"))  # before anything imports numpy

import argparse
import asyncio
import signal
import sys
from pathlib import Path

import msgspec
import uvloop

from interlock.core.clock import SystemClock
from interlock.core.errors import InterlockError
from interlock.core.http import HttpServer
from interlock.core.lifeline import tie_to_parent
from interlock.core.trust import read_trust
from interlock.model.package import Package, verify
from interlock.serving.batches import listen
from interlock.serving.batching import Batcher
from interlock.serving.door import admit, load
from interlock.serving.rest import ModelDoor

FLUSH_SECONDS = 0.05
"""Time for the last answers to leave the socket."""


def main() -> int:
    """Parse, verify, serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="interlock model-server", description="Serve one approved package.")
    parser.add_argument("--package", type=Path, required=True, help="the package's directory")
    parser.add_argument("--approval", type=Path, help="its approval, or the folder of decisions about it")
    parser.add_argument("--trust", type=Path, help="trust.json")
    parser.add_argument("--root", help="fingerprint of the root key")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, help="REST on this port")
    parser.add_argument("--socket", type=Path, help="batches on this Unix socket, REST on SOCKET.http")
    parser.add_argument("--scope", choices=("serve", "shadow"), default="serve")
    parser.add_argument(
        "--offline", action="store_true", help="without approval, on a Unix socket only, for evaluation"
    )
    options = parser.parse_args()
    tie_to_parent(grace=5.0)
    try:
        if options.offline and (options.port is not None or options.socket is None):
            parser.error("--offline serves on --socket only")
        if options.port is None and options.socket is None:
            parser.error("say --port N or --socket PATH")
        package, approved = _admit(options)
        uvloop.run(_serve(options, package, approved))
    except InterlockError as error:
        line = {"code": error.code, "message": error.message, "next": error.next}
        sys.stderr.write(msgspec.json.encode(line).decode() + "\n")
        return 1
    return 0


def _admit(options: argparse.Namespace) -> tuple[Package, str]:
    if options.offline:
        return verify(options.package), "offline"
    if options.trust is None or options.root is None:
        raise InterlockError("--trust and --root say whose approvals count", next="or --offline with --socket")
    trust = read_trust(options.trust, options.root)
    package, approval = admit(options.package, options.approval, trust, options.scope, SystemClock())
    return package, "self-approved" if approval.predicate.self_approved else "approved"


async def _serve(options: argparse.Namespace, package: Package, approved: str) -> None:
    predictor = load(package)
    batcher = Batcher(predictor)
    door = ModelDoor(batcher, approved)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    servers = []
    if options.port is not None:
        servers.append(HttpServer(door.handle, host=options.host, port=options.port))
    if options.socket is not None:
        rest = options.socket.with_name(options.socket.name + ".http")
        rest.unlink(missing_ok=True)
        servers.append(HttpServer(door.handle, path=rest))
    for server in servers:
        await server.start()
    batches = await listen(options.socket, batcher) if options.socket is not None else None
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


if __name__ == "__main__":
    sys.exit(main())
