"""`python -m interlock.processes.up`: everything a project needs, supervised. One a project, held by a lock."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import msgspec

from interlock.core.clock import SystemClock, iso
from interlock.core.errors import Conflict, InterlockError
from interlock.core.files import locked
from interlock.core.lifeline import tie_to_parent
from interlock.core.project import Project
from interlock.core.settings import ServeSettings
from interlock.deploy import plan
from interlock.deploy.ports import is_free, require_free
from interlock.deploy.status import UpStatus, write_up
from interlock.deploy.supervisor import Supervisor
from interlock.release import audit
from interlock.store.database import Database

TICK_SECONDS = 0.1
PLAN_SECONDS = 0.3
PORT_SECONDS = 12.0
"""A gateway of an `up` that was killed drains for at most ten seconds before it lets its port go."""


def main() -> int:
    """Supervise until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="interlock up", description="Run everything this project needs.")
    parser.add_argument("--project", type=Path, default=None)
    options = parser.parse_args()
    tie_to_parent(grace=30.0)
    stop, restart = threading.Event(), threading.Event()
    signal.signal(signal.SIGHUP, lambda *_: restart.set())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        project = Project.find(options.project)
        with locked(project.locks / "up.lock", timeout=0.0, holder=f"interlock up (pid {os.getpid()})"):
            _Up(project).run(stop, restart)
    except InterlockError as error:
        mending = "it already runs here: interlock status" if isinstance(error, Conflict) else error.next
        sys.stderr.write(f"error: {error.message}\n{'next: ' + mending if mending else ''}\n")
        return 1
    return 0


class _Up:
    def __init__(self, project: Project) -> None:
        self.project = project
        self.serve: ServeSettings = project.settings().serve
        self.root = project.root_fingerprint()
        self.database = Database(project.database)
        self.supervisor = Supervisor(project.logs, self._died)
        self.started_at = iso(SystemClock().now())
        self.refused: dict[str, str] = {}
        self._audited: set[tuple[str, str]] = set()
        self._said: UpStatus | None = None

    def run(self, stop: threading.Event, restart: threading.Event) -> None:
        """Start, keep alive, replace gateway workers when asked to, stop in reverse order."""
        self._require_ports(stop)
        fixed = plan.fixed(self.project, self.serve)
        announced, looked = False, 0.0
        try:
            while not stop.is_set():
                if time.monotonic() - looked >= PLAN_SECONDS:
                    looked = time.monotonic()
                    servers, self.refused = plan.replicas(self.project, self.root, self.serve.gateways)
                    self.supervisor.want([*servers, *fixed])
                if restart.is_set():
                    restart.clear()
                    self.supervisor.roll("gateway-")
                self.supervisor.tick()
                self._publish()
                if not announced and self.supervisor.ready():
                    announced = True
                    self._announce()
                stop.wait(TICK_SECONDS)
        finally:
            self.supervisor.stop()
            (self.project.state / "up.json").unlink(missing_ok=True)
            shutil.rmtree(self.project.sockets, ignore_errors=True)

    def _require_ports(self, stop: threading.Event) -> None:
        serve = self.serve
        wanted = {"gateway_port": serve.gateway_port, "grpc_port": serve.grpc_port, "control_port": serve.control_port}
        end = time.monotonic() + PORT_SECONDS
        crashed = (self.project.state / "up.json").exists()
        for setting, port in wanted.items():
            while crashed and not is_free(serve.host, port) and time.monotonic() < end:
                stop.wait(0.1)
            require_free(serve.host, port, f"[serve] {setting}")

    def _publish(self) -> None:
        status = UpStatus(
            pid=os.getpid(),
            started_at=self.started_at,
            host=self.serve.host,
            gateway_port=self.serve.gateway_port,
            grpc_port=self.serve.grpc_port,
            control_port=self.serve.control_port,
            ready=self.supervisor.ready(),
            processes=self.supervisor.statuses(),
            refused=self.refused,
        )
        if status != self._said:
            self._said = status
            write_up(self.project, status)

    def _announce(self) -> None:
        host = self.serve.host
        sys.stdout.write(
            f"ready: gateway http://{host}:{self.serve.gateway_port}  gRPC {host}:{self.serve.grpc_port}  "
            f"control plane http://{host}:{self.serve.control_port}\n"
        )
        sys.stdout.flush()

    def _died(self, name: str, code: int, said: str) -> None:
        """A model server that was refused is an event of the gate: who started it writes it down, once a reason."""
        refusal = _refusal(said) if code == 1 and name.startswith("model-server-") else None
        why = f": {refusal['message']}" if refusal else ""
        sys.stderr.write(f"{name} ended with {code}{why}; starting it again\n")
        if refusal is not None and (name, refusal["message"]) not in self._audited:
            self._audited.add((name, refusal["message"]))
            audit.append(
                self.database,
                actor="interlock up",
                action="refused",
                subject=name.removeprefix("model-server-"),
                after={"code": refusal["code"]},
                reason=refusal["message"],
            )


def _refusal(said: str) -> dict[str, str] | None:
    for line in reversed(said.splitlines()):
        if line.startswith('{"code"'):
            return msgspec.json.decode(line, type=dict[str, str])
    return None


if __name__ == "__main__":
    sys.exit(main())
