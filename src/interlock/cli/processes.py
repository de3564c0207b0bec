"""`interlock up` and `down`, and the processes one by one. A process is started, never imported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import NoReturn

import msgspec

from interlock.cli.output import Reply
from interlock.cli.session import Flags, Session
from interlock.core.errors import Conflict, NotRunning, Unavailable
from interlock.core.files import locked
from interlock.core.project import Project
from interlock.deploy.status import UpStatus, read_up
from interlock.registry.gateways import EndpointStatus, read_live
from interlock.registry.routes import RouteStore

START_SECONDS = 60.0
STOP_SECONDS = 60.0
LOOK_SECONDS = 0.05


def up(*, session: Session, detach: bool = False) -> Reply:
    """Run everything this project needs, until Ctrl-C.

    Args:
        detach: Return when everything is ready; `interlock down` stops it.
    """
    project = session.project
    project.root_fingerprint()
    try:
        running = read_up(project)
    except NotRunning:
        pass
    else:
        raise Conflict(f"it already runs here (pid {running.pid})", next="look: interlock status; stop: interlock down")
    if not detach:
        _become("up", "--project", str(project.root))
    session.progress("starting …")
    status = _wait_until_ready(project, *_start(project))
    return Reply(
        msgspec.to_builtins(status),
        (
            f"everything runs (pid {status.pid}, {len(status.processes)} processes)",
            f"gateway        http://{status.host}:{status.gateway_port}",
            f"gRPC           {status.host}:{status.grpc_port}",
            f"control plane  http://{status.host}:{status.control_port}/status",
            f"logs           {project.logs}",
        ),
        "\n".join(f"interlock predict {name} --sample" for name in RouteStore(project.routes).endpoints())
        or "interlock status",
    )


def _start(project: Project) -> tuple[subprocess.Popen[bytes], int]:
    """`up` in a session of its own, and where in its log it begins."""
    project.logs.mkdir(parents=True, exist_ok=True)
    with (project.logs / "up.log").open("ab") as log:
        began = log.tell()
        command = [sys.executable, "-m", "interlock.processes.up", "--project", str(project.root)]
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    return child, began


def _wait_until_ready(project: Project, child: subprocess.Popen[bytes], began: int) -> UpStatus:
    end = time.monotonic() + START_SECONDS
    waiting = "it has not begun"
    while time.monotonic() < end:
        if child.poll() is not None:
            raise _ended(project, child, began)
        try:
            status = read_up(project)
        except NotRunning:
            pass
        else:
            silent = [one.name for one in status.processes if one.state != "ready"] or _unanswered(project)
            if status.pid == child.pid and status.ready and not silent:
                return status
            waiting = f"{', '.join(silent)} not ready"
        time.sleep(LOOK_SECONDS)
    raise Unavailable(
        f"it runs (pid {child.pid}), but after {START_SECONDS:g} s: {waiting}",
        next="interlock status; the logs are in .interlock/logs",
    )


def _ended(project: Project, child: subprocess.Popen[bytes], began: int) -> Unavailable:
    """Why it is gone, in its own words."""
    said = (project.logs / "up.log").read_bytes()[began:].decode(errors="replace").strip()
    parts = dict(line.split(": ", 1) for line in said.splitlines() if line.startswith(("error: ", "next: ")))
    return Unavailable(
        parts.get("error", f"it ended with {child.returncode}: {said}"),
        next=parts.get("next", "read .interlock/logs/up.log"),
    )


def _unanswered(project: Project) -> list[str]:
    """Endpoints that have an arm which some gateway does not reach yet."""
    live, names = read_live(project.gateways), RouteStore(project.routes).endpoints()
    return [name for name in names if not live or not all(_answers(one.endpoints.get(name)) for one in live)]


def _answers(served: EndpointStatus | None) -> bool:
    return served is not None and all(served.arms.values())


def down(*, session: Session) -> Reply:
    """Stop everything that `interlock up` started, the gateways first."""
    project = session.project
    running = read_up(project)
    os.kill(running.pid, signal.SIGTERM)
    session.progress("stopping …")
    try:
        with locked(project.locks / "up.lock", timeout=STOP_SECONDS):  # the kernel frees it when the process is gone
            pass
    except Conflict:
        raise Unavailable(
            f"pid {running.pid} still runs after {STOP_SECONDS:g} s", next=f"kill -9 {running.pid} ends it at once"
        ) from None
    return Reply({"pid": running.pid, "stopped": True}, ("everything has stopped",), "interlock up")


def restart(*, session: Session) -> Reply:
    """Replace the gateway workers one after the other, as after an upgrade: no request fails."""
    project = session.project
    running = read_up(project)
    before = {one.slot: one.pid for one in read_live(project.gateways)}
    os.kill(running.pid, signal.SIGHUP)
    session.progress("each worker's successor starts before it goes …")
    end = time.monotonic() + START_SECONDS * max(1, len(before))
    while time.monotonic() < end:
        live = read_live(project.gateways)
        if {one.slot for one in live} >= set(before) and all(before.get(one.slot) != one.pid for one in live):
            return Reply({"gateways": len(live)}, (f"{len(live)} gateway worker(s) replaced",), "interlock status")
        time.sleep(LOOK_SECONDS)
    raise Unavailable("not every gateway worker was replaced", next="read .interlock/logs/gateway-0.log")


def server(*, session: Session) -> NoReturn:
    """Run the control plane by itself."""
    _in_project(session, "server")


def worker(*, session: Session, until_idle: bool = False) -> NoReturn:
    """Run one worker, which carries runs and fires schedules.

    Args:
        until_idle: Leave when no run is open; fire no schedule.
    """
    _in_project(session, "worker", *(("--until-idle",) if until_idle else ()))


def gateway(*, session: Session, slot: int = 0, host: str = "", port: int = 0, grpc_port: int = 0) -> NoReturn:
    """Run one gateway worker.

    Args:
        slot: Which of the project's gateway workers it is; no two have the same.
        host: Address (default: [serve] host).
        port: Port (default: [serve] gateway_port).
        grpc_port: Port for gRPC (default: [serve] grpc_port).
    """
    given = {"--host": host, "--port": port, "--grpc-port": grpc_port}
    flags = [word for flag, value in given.items() if value for word in (flag, str(value))]
    _in_project(session, "gateway", "--slot", str(slot), *flags)


def recorder(*, session: Session) -> NoReturn:
    """Run the recorder, which moves the journals into the warehouse."""
    _in_project(session, "recorder")


def _in_project(session: Flags, process: str, *flags: str) -> NoReturn:
    project = session.project
    project.root_fingerprint()
    _become(process, "--project", str(project.root), *flags)


def _become(process: str, *arguments: str) -> NoReturn:
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", f"interlock.processes.{process}", *arguments])  # noqa: S606 no shell: an argument list
