"""`interlock status`: what runs."""

from __future__ import annotations

import msgspec

from interlock.cli.output import Columns, Reply
from interlock.cli.session import Session
from interlock.deploy.status import read_status


def status(*, session: Session) -> Reply:
    """Show what runs, and what each gateway serves."""
    found = read_status(session.project)
    up = found.up
    arms = [
        {
            "endpoint": name,
            "gateway": gateway.slot,
            "revision": served.revision,
            "arms": [f"{arm} ({count})" for arm, count in served.arms.items()],
            "error": served.error,
        }
        for gateway in found.gateways
        for name, served in gateway.endpoints.items()
    ]
    text: list[str | Columns] = [
        f"pid {up.pid} since {up.started_at}, {'everything is ready' if up.ready else 'not everything is ready'}",
        f"gateway http://{up.host}:{up.gateway_port}  gRPC {up.host}:{up.grpc_port}  "
        f"control plane http://{up.host}:{up.control_port}",
        "",
        Columns(msgspec.to_builtins(up.processes), ("name", "state", "pid", "restarts", "last_exit", "log")),
    ]
    text += ["", Columns(arms, ("endpoint", "gateway", "revision", "arms", "error"))] if arms else []
    text += [f"{name} is refused: {why}" for name, why in up.refused.items()]
    step = "" if arms else "interlock deploy MODEL:V --to ENDPOINT --as champion"
    return Reply(msgspec.to_builtins(found), text, step if up.ready else "interlock doctor")
