"""`python -m interlock.processes.model_server`: one verified package behind REST, gRPC and batches.

Refused or failed: exit 1, one JSON line `{"code", "message", "next"}` on stderr, no port opened.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
SHADOW_NICE = 10
"""A shadow works with what the live path leaves of the processor."""


def main() -> int:
    """Parse, pin the thread pools, and only then import what may bring numpy along."""
    parser = argparse.ArgumentParser(prog="interlock model-server", description="Serve one approved package.")
    parser.add_argument("--package", type=Path, required=True, help="the package's directory")
    parser.add_argument("--approval", type=Path, help="its approval, or the folder of decisions about it")
    parser.add_argument("--trust", type=Path, help="trust.json")
    parser.add_argument("--root", help="fingerprint of the root key")
    parser.add_argument("--routes", type=Path, help="the routes that may go on with an approval that has ended")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, help="REST on this port")
    parser.add_argument("--grpc-port", type=int, help="gRPC on this port")
    parser.add_argument("--socket", type=Path, help="batches on this Unix socket, REST on SOCKET.http")
    parser.add_argument("--grpc", action="store_true", help="gRPC on SOCKET.grpc too")
    parser.add_argument("--scope", choices=("serve", "shadow"), default="serve")
    parser.add_argument(
        "--offline", action="store_true", help="without approval, on a Unix socket only, for evaluation"
    )
    options = parser.parse_args()
    ports = [port for port in (options.port, options.grpc_port) if port is not None]
    if options.offline and (ports or options.socket is None):
        parser.error("--offline serves on --socket only")
    if not ports and options.socket is None:
        parser.error("say --port N, --grpc-port N or --socket PATH")
    if not options.offline and (options.trust is None or options.root is None):
        parser.error("--trust and --root say whose approvals count (or --offline with --socket)")
    for pool in POOLS:
        os.environ.setdefault(pool, os.environ.get("INTERLOCK_MODEL_THREADS", "1"))
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    import msgspec
    import uvloop

    from interlock.core.clock import SystemClock
    from interlock.core.errors import InterlockError
    from interlock.core.lifeline import tie_to_parent
    from interlock.core.trust import TrustKeeper
    from interlock.model.package import verify
    from interlock.serving.door import admit
    from interlock.serving.server import serve
    from interlock.serving.standing import Standing, Watched

    tie_to_parent(grace=5.0)
    if options.scope == "shadow":
        os.nice(SHADOW_NICE)
    try:
        if options.offline:
            package, standing = verify(options.package), Standing()
        else:
            keeper, clock = TrustKeeper(options.trust, options.root), SystemClock()
            package, approval = admit(
                options.package, options.approval, keeper.read(), options.scope, clock, options.routes
            )
            standing = Watched(
                package,
                "self-approved" if approval.predicate.self_approved else "approved",
                approval=options.approval,
                keeper=keeper,
                scope=options.scope,
                clock=clock,
                routed=options.routes is not None,
            )
        if options.socket is not None:  # what a dead server left behind
            options.socket.unlink(missing_ok=True)
            options.socket.with_name(options.socket.name + ".http").unlink(missing_ok=True)
        where = {"host": options.host, "port": options.port, "grpc_port": options.grpc_port, "path": options.socket}
        where["grpc"] = options.grpc
        uvloop.run(serve(package, standing, **where))
    except InterlockError as error:
        line = {"code": error.code, "message": error.message, "next": error.next}
        sys.stderr.write(msgspec.json.encode(line).decode() + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
