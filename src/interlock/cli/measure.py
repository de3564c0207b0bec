"""`interlock loadtest` and `interlock skew`: evidence of how a version runs, and of what it is asked."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import msgspec

from interlock.cli.identity import somebody
from interlock.cli.log import log_of
from interlock.cli.output import Columns, Part, Reply
from interlock.cli.session import Session
from interlock.core.errors import NotFound, Usage
from interlock.core.hashing import canonical
from interlock.evaluation.loadtest import LoadTest, expected, load_test
from interlock.evaluation.skew import Skew, check_skew
from interlock.evaluation.subjects import endpoint_of, registered
from interlock.registry import evidence
from interlock.registry.packages import PackageStore
from interlock.registry.versions import Versions
from interlock.release import audit
from interlock.store.database import Database
from interlock.warehouse.ducklake import open_warehouse

LATENCIES = ("p50_ms", "p90_ms", "p99_ms", "p999_ms", "lag_p99_ms", "client_cpu")
STEP = ("name", "rate", "n", "errors", "unanswered", *LATENCIES, "verdict")


def loadtest(version: str, /, *, session: Session, rate: float | None = None, seconds: float = 5.0) -> Reply:
    """Ask a model server of the version at the expected load, at twice that, and up to where the deadline breaks.

    Args:
        version: MODEL:V
        rate: Requests a second that are expected (default: [endpoint] expected_rate, else the log's busiest hour, else 50).
        seconds: For how long, at the expected load and at twice that.
    """
    project, database = session.project, Database(session.project.database)
    candidate = registered(Versions(database, PackageStore(project.packages)), version)
    route = endpoint_of(project, candidate.subject.model)
    with closing(open_warehouse(project.warehouse, read_only=True)) as warehouse:
        load = expected(project, warehouse, route, rate, seconds)
        found = load_test(project, warehouse, candidate, route, load, session.progress)
    steps = msgspec.to_builtins(found.steps)
    text: list[Part] = [
        f"{version}: {found.requests} {found.source} requests over REST; {load.rate:g}/s expected ({load.rate_from})",
        Columns(steps, STEP),
        *(f"first error at {one.rate:g}/s: {one.said}" for one in found.steps if one.said),
        f"the deadline of {load.deadline_s:g} s breaks {found.limit}",
        f"alone {found.alone_ms:g} ms; ready after {found.start_seconds:g} s, {found.memory_mb:g} MB resident; "
        f"package {found.package_bytes / 1e6:.2f} MB",
        f"on {found.cores} cores of {found.processor}, load average {found.machine_load:g} before",
    ]
    return _kept(database, "loadtest", found, text, f"interlock review {version}")


def skew(version: str, /, *, session: Session, endpoint: str = "", last: int | None = None) -> Reply:
    """Rebuild logged raw inputs through the version's extract, and compare them input by input.

    Args:
        version: MODEL:V
        endpoint: Whose log (default: the endpoint that serves the model).
        last: Only the newest so many requests; of more than 1000 a sample is taken.
    """
    project, database = session.project, Database(session.project.database)
    candidate = registered(Versions(database, PackageStore(project.packages)), version)
    if last is not None and last < 1:
        raise Usage(f"--last {last}: at least 1")
    model = candidate.subject.model
    route = endpoint_of(project, model, endpoint)
    if route is None:
        raise NotFound(f"no endpoint serves {model}", next=f"interlock deploy {version} --to {model} --as champion")
    found = check_skew(project, log_of(project, route.endpoint), candidate, route.endpoint, last)
    document: dict[str, Any] = msgspec.to_builtins(found)
    text: list[Part] = [
        f"{version} at {found.endpoint}: {found.found} of {found.rows} logged rows are in the extract at snapshot "
        f"{found.snapshot}, by {found.key} = {found.id}",
        f"chosen of {found.requests} answered requests, {found.first} to {found.last}",
        Columns(document["inputs"], ("name", "n", "mismatched", "share")),
    ]
    step = f"interlock review {version}"
    if found.examples:
        text.append(Columns(document["examples"], ("prediction_id", "row", "input", "served", "rebuilt")))
        step = f"interlock explain {found.examples[0].prediction_id}"
    return _kept(database, "skew", found, text, step)


def _kept(database: Database, kind: evidence.Kind, found: LoadTest | Skew, text: list[Part], step: str) -> Reply:
    with audit.transaction(database) as connection:
        package, who = found.subject.package_digest, somebody(None)
        digest = evidence.store(connection, kind, canonical(found), package, None, found.created, who)
        audit.append(connection, who, kind, found.subject.name, None, {"digest": digest})
    return Reply({"digest": digest, kind: msgspec.to_builtins(found)}, (*text, f"kept as {kind} {digest}"), step)
