"""Which processes a project needs now: the fixed ones, and a model server for every replica that its routes name."""

from __future__ import annotations

import sys

from interlock.core.errors import Corrupt, InterlockError
from interlock.core.project import Project
from interlock.core.settings import ServeSettings
from interlock.core.trust import read_trust
from interlock.deploy.supervisor import ProcessSpec
from interlock.registry.gateways import read_last
from interlock.registry.packages import PackageStore, package_hex
from interlock.registry.routes import RouteStore


def fixed(project: Project, serve: ServeSettings) -> list[ProcessSpec]:
    """Recorder, worker, control plane and gateway workers. The recorder starts first and stops last."""
    where = ("--project", str(project.root))
    specs = [
        ProcessSpec("recorder", _command("recorder", *where), 0),
        ProcessSpec("worker", _command("worker", *where), 1),
        ProcessSpec("server", _command("server", *where), 1),
    ]
    specs += [
        ProcessSpec(f"gateway-{slot}", _command("gateway", *where, "--slot", str(slot)), 3)
        for slot in range(serve.gateways)
    ]
    return specs


def replicas(project: Project, fingerprint: str, gateways: int) -> tuple[list[ProcessSpec], dict[str, str]]:
    """A model server for every replica in a verified route, and why other endpoints' routes are refused.

    `fingerprint` of the root and number of `gateways`: as they were when everything started, so that what runs needs no
    interlock.toml.

    Those that a gateway still asks go on too, until it has swapped them for the newest revision's; a gateway that was killed
    is started again and finds those that it asked.
    """
    store, refused = RouteStore(project.routes), dict[str, str]()
    serving: dict[str, str] = {}
    shadows: dict[str, str] = {}
    try:
        for status in read_last(project.gateways):
            for endpoint in status.endpoints.values() if status.alive or status.slot < gateways else ():
                serving |= endpoint.replicas
    except Corrupt as error:  # what runs goes on; the file is written again with the next acknowledgement
        refused["gateways"] = error.message
    for name in store.endpoints():
        try:
            route = store.read(name, read_trust(project.trust, fingerprint))
        except InterlockError as error:
            refused[name] = error.message
        else:
            serving |= route.replicas()
            shadows |= route.shadow_replicas()
    sockets, packages = project.make_sockets(), PackageStore(project.packages)

    def server(name: str, digest: str) -> ProcessSpec:
        command = _command(
            "model_server",
            *("--package", str(packages.path(digest))),
            *("--approval", str(project.approvals / package_hex(digest))),
            *("--trust", str(project.trust)),
            *("--root", fingerprint),
            *("--routes", str(project.routes)),
            *("--socket", str(sockets / name)),
            *(("--scope", "shadow") if name in shadows else ()),
        )
        return ProcessSpec(f"model-server-{name}", command, 2)

    return [server(name, digest) for name, digest in {**serving, **shadows}.items()], refused


def _command(process: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"interlock.processes.{process}", *arguments)
