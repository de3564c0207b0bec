"""The state of a running project, from what its processes leave on disk: readable without asking any of them."""

from __future__ import annotations

import os

import msgspec

from interlock.core.errors import NotRunning
from interlock.core.files import write_atomic
from interlock.core.project import Project
from interlock.deploy.supervisor import ProcessStatus
from interlock.registry.gateways import GatewayStatus, read_live


class UpStatus(msgspec.Struct, frozen=True):
    """What `interlock up` says of itself in `.interlock/up.json`."""

    pid: int
    started_at: str
    host: str
    gateway_port: int
    grpc_port: int
    control_port: int
    ready: bool
    processes: list[ProcessStatus]
    refused: dict[str, str] = {}
    """Endpoints whose current route is refused, and why."""


class Status(msgspec.Struct, frozen=True):
    """What `interlock status` shows."""

    up: UpStatus
    gateways: list[GatewayStatus]


def write_up(project: Project, status: UpStatus) -> None:
    """Publish it."""
    write_atomic(project.state / "up.json", msgspec.json.encode(status))


def read_up(project: Project) -> UpStatus:
    """The running `interlock up` of this project.

    Raises:
        NotRunning: there is none.
    """
    path = project.state / "up.json"
    if path.exists():
        status = msgspec.json.decode(path.read_bytes(), type=UpStatus)
        try:
            os.kill(status.pid, 0)
        except ProcessLookupError:
            pass  # its supervisor was killed; what it wrote is stale
        else:
            return status
    raise NotRunning("nothing runs in this project", next="start with interlock up")


def read_status(project: Project) -> Status:
    """All of it.

    Raises:
        NotRunning: `interlock up` does not run here.
    """
    return Status(read_up(project), read_live(project.gateways))
