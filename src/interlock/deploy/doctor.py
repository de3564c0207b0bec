"""What is wrong with a project on this machine, each finding with the command that mends it. Nothing is changed."""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from interlock.core.clock import Clock, SystemClock, iso, parse_time
from interlock.core.errors import Conflict, InterlockError, NotRunning
from interlock.core.files import locked
from interlock.core.project import Project
from interlock.core.trust import TrustRoot, read_trust
from interlock.deploy.ports import holder_of, is_free
from interlock.deploy.status import read_up
from interlock.model.package import read_manifest, verify
from interlock.predlog.recorder import Backlog, backlog
from interlock.registry.approvals import read_decisions
from interlock.registry.packages import PackageStore
from interlock.registry.routes import RouteDocument, RouteStore
from interlock.release import audit
from interlock.store.database import Database
from interlock.warehouse.ducklake import open_warehouse, statement

CLOCK_SLACK = timedelta(minutes=2)
LOCK_SECONDS = 5.0
RESTORE = "restore what was altered from a backup"
BACKLOG_BYTES = 64 << 20
"""More than this waits for the recorder only when it does not keep up."""


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    check: str
    ok: bool
    found: str
    mend: str = ""


def examine(project: Project, clock: Clock | None = None) -> list[Check]:
    """Look at everything. A look that fails is a finding, and the others go on."""
    looks: dict[str, Callable[[Project], Iterator[Check]]] = {
        "ports": _ports,
        "disk": _disk,
        "clock": partial(_clock, clock=clock or SystemClock()),
        "locks": _locks,
        "warehouse": _warehouse,
        "trust": _trust,
        "audit": _audit,
        "processes": _processes,
        "packages": _packages,
        "libraries": _libraries,
    }
    found: list[Check] = []
    for name, look in looks.items():
        try:
            found += look(project)
        except InterlockError as error:
            found.append(Check(name, False, error.message, error.next or RESTORE))
    return found


def _ports(project: Project) -> Iterator[Check]:
    try:
        ours = {one.pid for one in read_up(project).processes}
    except NotRunning:
        ours = set()
    serve = project.settings().serve
    for setting in ("gateway_port", "grpc_port", "control_port"):
        port = getattr(serve, setting)
        if is_free(serve.host, port):
            yield Check("ports", True, f"{setting} {port} is free")
            continue
        holder = holder_of(port)
        own = any(f"(pid {pid})" in holder for pid in ours)
        mend = "" if own else f"stop it, or set another [serve] {setting} in interlock.toml"
        yield Check("ports", own, f"{setting} {port} is held by {holder}", mend)


def _disk(project: Project) -> Iterator[Check]:
    stat = os.statvfs(project.state)
    free, reserve = stat.f_bavail * stat.f_frsize >> 20, project.settings().serve.reserve_mb
    mend = "" if free > reserve else f"free disk space under {project.state}: the gateways refuse requests"
    yield Check("disk", free > reserve, f"{free} MiB free, of which {reserve} are kept in reserve", mend)


def _clock(project: Project, clock: Clock) -> Iterator[Check]:
    """Nothing that was written here can be from the future."""
    now = clock.now()
    newest = max((entry.at for entry in audit.entries(Database(project.database), last=1)), default=iso(now))
    ahead = parse_time(newest) - now
    mend = "" if ahead < CLOCK_SLACK else "set the clock: timedatectl set-ntp true"
    yield Check("clock", not mend, f"it is {iso(now)}, and the newest audit entry is from {newest}", mend)


def _locks(project: Project) -> Iterator[Check]:
    held = {
        path.name: holder for path in sorted(project.state.rglob("*.lock")) if (holder := _holder(path)) is not None
    }
    yield Check("locks", True, "; ".join(f"{name} by {holder}" for name, holder in held.items()) or "none is held")


def _holder(path: Path) -> str | None:
    """Who holds the lock; None when it is free."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read(200).decode(errors="replace").strip() or "a process that left no name"
    return None


def _warehouse(project: Project) -> Iterator[Check]:
    warehouse = open_warehouse(project.warehouse, read_only=True)
    marks = warehouse.marks()
    warehouse.close()
    yield Check("warehouse", True, f"plain DuckDB opens it: {statement(project.warehouse)}")
    try:
        with locked(project.warehouse / "write.lock", timeout=LOCK_SECONDS) as waited:
            pass
    except Conflict as error:
        text = f"nobody else could write for {LOCK_SECONDS:g} s: {error.message}"
        yield Check("warehouse", False, text, "end that process, and start it again: interlock status")
    else:
        yield Check("warehouse", True, f"its write lock was free after {waited * 1000:.0f} ms")
    yield from _journals(project, backlog(project.journals, marks))


def _journals(project: Project, waiting: Backlog) -> Iterator[Check]:
    lock = project.locks / "recorder.lock"
    lives = lock.exists() and _holder(lock) is not None
    text = f"{waiting.bytes} bytes in {waiting.segments} segment(s) wait for the recorder"
    if waiting.bytes and not lives:
        yield Check("journals", False, f"{text}, which does not run", "interlock up")
    else:
        slow = waiting.bytes > BACKLOG_BYTES
        yield Check("journals", not slow, text, "read .interlock/logs/recorder.log" if slow else "")
    mend = (
        f"keep a copy of {project.state / 'quarantine'}, then remove what was looked at" if waiting.quarantined else ""
    )
    yield Check("journals", not mend, f"{waiting.quarantined} damaged segment(s) in quarantine", mend)


def _trust(project: Project) -> Iterator[Check]:
    """The trust root, then everything that was signed under it."""
    trust = read_trust(project.trust, project.root_fingerprint())
    yield Check(
        "trust", True, f"trust.json verifies: revision {trust.revision}, {len(trust.keys)} key(s), {trust.mode}"
    )
    found = _routes(project, trust)
    approvals = sum(len(read_decisions(project.approvals, digest, trust)) for digest in _served(found))
    yield Check("trust", True, f"{len(found)} route(s) and {approvals} decision(s) on what they serve verify")


def _routes(project: Project, trust: TrustRoot) -> list[RouteDocument]:
    routes = RouteStore(project.routes)
    return [routes.read(name, trust) for name in routes.endpoints()]


def _served(routes: list[RouteDocument]) -> list[str]:
    """Packages that the routes name."""
    return sorted({digest for one in routes for digest in {**one.replicas(), **one.shadow_replicas()}.values()})


def _audit(project: Project) -> Iterator[Check]:
    yield Check("audit", True, f"the chain of {audit.verify(Database(project.database))} entries is intact")


def _processes(project: Project) -> Iterator[Check]:
    """Those that ended by themselves and have not been ready since."""
    try:
        processes = read_up(project).processes
    except NotRunning:
        return
    for one in processes:
        if one.last_exit is not None and one.state != "ready":
            said = f"{one.name} ended with {one.last_exit} and is not up again ({one.state}; started anew {one.restarts} times)"
            yield Check("processes", False, said, f"it says why: {project.logs / one.log}")


def _packages(project: Project) -> Iterator[Check]:
    """Every file of what the routes name, as a model server reads it."""
    packages, whole = PackageStore(project.packages), 0
    for digest in _served(_routes(project, read_trust(project.trust, project.root_fingerprint()))):
        try:
            verify(packages.find(digest), digest)
            whole += 1
        except InterlockError as error:
            yield Check("packages", False, error.message, error.next or RESTORE)
    yield Check("packages", True, f"{whole} package(s) that routes name verify, file by file")


def _libraries(project: Project) -> Iterator[Check]:
    """What serves a package should be what it was trained with."""
    packages = PackageStore(project.packages)
    trust = read_trust(project.trust, project.root_fingerprint())
    arms = {arm.package_digest: arm for route in _routes(project, trust) for arm in route.arms}
    for digest, arm in arms.items():
        manifest = read_manifest(packages.find(digest), digest)
        wanted = {"python": manifest.python, **manifest.libraries}
        other = [
            f"{name} {there} instead of {was}" for name, was in wanted.items() if (there := _installed(name)) != was
        ]
        name = f"{arm.model}:{arm.version}"
        mend = f"pip install -r {packages.find(digest) / 'requirements.txt'}; or train again: interlock train"
        yield Check("libraries", not other, f"{name}: {', '.join(other) or 'as trained'}", mend if other else "")


def _installed(name: str) -> str:
    try:
        return platform.python_version() if name == "python" else version(name)
    except PackageNotFoundError:
        return "nothing"
