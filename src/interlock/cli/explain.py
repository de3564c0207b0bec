"""`interlock explain`: everything about one prediction, from the log back to the data and the person who signed."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from interlock.cli.output import Columns, Part, Reply, cell
from interlock.cli.session import Session
from interlock.core.assignment import bucket
from interlock.core.clock import parse_time
from interlock.core.errors import Conflict, NotApproved, NotFound, Usage
from interlock.core.project import Project, snake
from interlock.model.package import read_manifest
from interlock.predlog.recorder import backlog
from interlock.registry.approvals import read_decisions, require_approval
from interlock.registry.packages import PackageStore
from interlock.registry.routes import RouteStore
from interlock.registry.versions import Versions
from interlock.release.reviews import sentence
from interlock.release.users import trust_of
from interlock.store.database import Database
from interlock.warehouse.ducklake import open_warehouse
from interlock.warehouse.port import Warehouse

if TYPE_CHECKING:
    from interlock.evaluation.rerun import Rerun

WAIT_SECONDS = 3.0
LOOK_SECONDS = 0.2
NEAR = timedelta(minutes=5)

# The id tells when it was made, so only files of that time are read.
ROWS = """
select * from interlock.PREDICTIONS
where prediction_id = $id::uuid and received_at between $first::timestamptz and $last::timestamptz
order by role, "row"
"""

LABELS = """
select "row", name, value_num, value_text, "at", received_at
from interlock.FEEDBACK where prediction_id = $id::uuid order by received_at, position
"""


def explain(prediction: str, /, *, session: Session, rerun: bool = False) -> Reply:
    """Tell everything about one prediction.

    Args:
        prediction: Its id, as the answer said: X-Interlock-Prediction-Id.
        rerun: Give the answer again from the stored package, and compare.
    """
    project = session.project
    rows, labels = _find(project, prediction)
    first = rows[0]
    document = {
        **{name: value for name, value in first.items() if not name.startswith(("in_", "out_")) and name != "row"},
        "rows": [_row(row, labels) for row in rows if row["role"] == first["role"]],
        "shadows": [_shadow(row) for row in rows if row["role"] == "shadow"],
        **_release(project, first),
    }
    text, again = _text(document), _rerun(project, document) if rerun else None
    if again is not None:
        document["rerun"] = msgspec.to_builtins(again)
        text += ["", *_compared(again)]
    return Reply(
        document,
        text,
        f"interlock versions show {first['model']}:{first['version']}" if first["version"] else "",
        failed=again is not None and not again.reproduced,
    )


def _rerun(project: Project, told: dict[str, Any]) -> Rerun:
    """The answer given again.

    Raises:
        Conflict: no model gave it.
    """
    from interlock.evaluation.rerun import rerun  # here: what only this needs

    if told["outcome"] != "answered":
        what = f"{told['outcome']} {told['reason']}".strip()
        raise Conflict(
            f"prediction {told['prediction_id']} is {what}: no model gave an answer that could be given again",
            next=f"interlock explain {told['prediction_id']}",
        )
    digest, rows = told["package_digest"], told["rows"]
    package, threshold = PackageStore(project.packages).find(digest), told["route"]["parameters"]["THRESHOLD"]
    inputs, outputs = ([row[name] for row in rows] for name in ("inputs", "outputs"))
    return rerun(package, read_manifest(package, digest), inputs, outputs, threshold)


def _compared(again: Rerun) -> list[Part]:
    if again.reproduced:
        return [f"rerun       reproduced: {again.rows} row(s), labels equal, numbers within {again.rtol:g}"]
    labels = {one.output for one in again.differences} == {"label"}
    pinned = f"; was THRESHOLD pinned to another value than {again.threshold:g} by the gateway's environment?"
    rows = msgspec.to_builtins(again.differences)
    return [
        f"rerun       NOT reproduced: {len(rows)} of its values differ{pinned if labels else ''}",
        Columns(rows, ("row", "output", "logged", "again")),
    ]


def _find(project: Project, prediction: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of the prediction and what was said about them since; waits for the recorder a little."""
    try:
        found = uuid.UUID(prediction)
    except ValueError:
        raise Usage(f"{prediction!r} is no prediction id", next="interlock predictions ENDPOINT lists some") from None
    warehouse = open_warehouse(project.warehouse, read_only=True)
    at = datetime.fromtimestamp((found.int >> 80) / 1000, UTC)
    near = {"id": str(found), "first": (at - NEAR).isoformat(), "last": (at + NEAR).isoformat()}
    end = time.monotonic() + WAIT_SECONDS
    while True:
        for name in _endpoints(project, warehouse):
            rows = warehouse.query(ROWS.replace("PREDICTIONS", f"predictions_{name}"), near).to_pylist()
            if rows:
                sql = LABELS.replace("FEEDBACK", f"feedback_{name}")
                return rows, warehouse.query(sql, {"id": str(found)}).to_pylist()
        if time.monotonic() >= end:
            break
        time.sleep(LOOK_SECONDS)
    waiting = backlog(project.journals, warehouse.marks())
    if waiting.bytes:
        raise NotFound(
            f"prediction {found} is not recorded yet: {waiting.bytes} bytes of journals wait for the recorder",
            next="does the recorder run? interlock status",
        )
    raise NotFound(
        f"no endpoint of this project has a prediction {found}", next="interlock predictions ENDPOINT lists them"
    )


def _endpoints(project: Project, warehouse: Warehouse) -> list[str]:
    there = {one.name for one in warehouse.tables()}
    names = [snake(name) for name in RouteStore(project.routes).endpoints()]
    return [name for name in names if f"interlock.predictions_{name}" in there]


def _shadow(row: dict[str, Any]) -> dict[str, Any]:
    """What a shadow said to the same row."""
    outputs = {name[4:]: value for name, value in row.items() if name.startswith("out_")}
    return {"arm": row["arm"], "version": row["version"], "row": row["row"], "outcome": row["outcome"], **outputs}


def _row(row: dict[str, Any], labels: list[dict[str, Any]]) -> dict[str, Any]:
    """Inputs, outputs, and the latest value of every name that came back."""
    said = {one["name"]: one for one in labels if one["row"] == row["row"]}
    label = said.pop("label", None)
    return {
        "row": row["row"],
        "inputs": {name[3:]: value for name, value in row.items() if name.startswith("in_")},
        "outputs": {name[4:]: value for name, value in row.items() if name.startswith("out_")},
        "label": _value(label, row.get("out_label")) if label else None,
        "label_at": label["at"] if label else None,
        "label_delay_s": (label["at"] - row["event_time"]).total_seconds() if label else None,
        "outcomes": {name: _value(one, None) for name, one in said.items()},
    }


def _value(said: dict[str, Any], like: Any) -> Any:
    """A number as the answer writes it: feedback keeps true as 1.0."""
    number = said["value_num"]
    if number is None:
        return said["value_text"]
    return type(like)(number) if isinstance(like, int) else number


def _release(project: Project, row: dict[str, Any]) -> dict[str, Any]:
    """How the request got to this version, and how the version got there; nulls where no version was asked."""
    trust = trust_of(project)
    store = RouteStore(project.routes)
    route = store.read(row["endpoint"], trust, row["route_revision"], past=True).at(row["received_at"])
    assignment = {
        "salt": route.experiment.salt,
        "bucket": bucket(route.experiment.salt, row["unit_id"]),
        "ranges": next((arm.ranges for arm in route.arms if arm.name == row["arm"]), ()),
    }
    signed = {name: getattr(route, name) for name in ("revision", "author", "reason", "time", "risk", "diff")}
    signed |= {"signed_by": store.signers(route, trust), "override": route.override.until if route.override else None}
    found: dict[str, Any] = {
        "assignment": assignment,
        "route": {
            **signed,
            "parameters": msgspec.to_builtins(route.parameters),
            "rules": [msgspec.to_builtins(rule) for rule in route.rules if rule.name in (row["rules"] or ())],
        },
        "label": None,
        "lineage": None,
        "approval": None,
        "review": [],
    }
    if not row["package_digest"]:
        return found
    digest, packages = row["package_digest"], PackageStore(project.packages)
    manifest = read_manifest(packages.find(digest), digest)
    version = Versions(Database(project.database), packages).of_package(digest)
    decisions = read_decisions(project.approvals, digest, trust)
    then = parse_time(route.time)
    decisions = [one for one in decisions if parse_time(one.predicate.time) <= then]
    found["review"] = [sentence(one.predicate) for one in decisions]
    try:
        told = require_approval(decisions, digest, manifest.author.name, "serve", trust, then)
        found["approval"] = msgspec.to_builtins(told.predicate)
    except NotApproved as error:  # at rest nothing is served without; said as it is
        found["approval"] = {"refused": error.message}
    lineage = msgspec.to_builtins(manifest.lineage)
    del lineage["recipe"]
    return found | {"label": version.label if version else None, "lineage": {"author": manifest.author.name, **lineage}}


def _text(told: dict[str, Any]) -> list[Part]:
    route, lineage, approval = told["route"], told["lineage"], told["approval"]
    known = "given by the client" if told["unit_source"] == "client" else "none given: the request's own id"
    experiment = told["experiment"] or "none"
    changed = ", ".join(f"{name}={cell(value)}" for name, value in route["parameters"].items())
    parts: list[Part] = [
        f"{told['outcome']} {told['reason']}".strip() + f" in {told['latency_ms']:.1f} ms at {told['received_at']}",
        "",
        Columns([_flat(row) for row in told["rows"]], tuple(_flat(told["rows"][0]))),
        "",
        f"unit        {told['unit_id']} ({known})",
        f"assignment  bucket {told['assignment']['bucket']} of salt {told['assignment']['salt']} → {told['arm'] or 'no arm'}"
        f", share {told['propensity']:.4g}",
        f"experiment  {experiment}, phase {told['phase']}",
        f"route       revision {route['revision']} by {route['author']}, {route['time']} {route['reason']}".rstrip(),
        f"signed by   {', '.join(route['signed_by'])}: class {route['risk'] or 'low'}, diff {route['diff'] or 'none'}"
        + (f", override until {route['override']}" if route["override"] else ""),
        f"parameters  {changed}",
        *(f"rule        {one['name']} decided: {one['then']} when {one['when']}" for one in route["rules"]),
        *([f"trace       {told['traceparent']}"] if told.get("traceparent") else []),
    ]
    if told["shadows"]:
        parts += ["", Columns(told["shadows"], tuple(told["shadows"][0])), ""]
    if lineage is not None:
        parts += [
            f"version     {told['model']}:{told['version']}  {told['label']}",
            f"package     {told['package_digest']}",
            f"trained     by {lineage['author']}, run {lineage['run']}, parameters {lineage['parameters']}",
            f"data        snapshot {lineage['snapshot']}, extract {lineage['extract_digest']}: "
            + ", ".join(f"{part} {n}" for part, n in lineage["split"]["rows"].items()),
            f"            {' '.join(lineage['sql'].split())}",
            f"source      commit {lineage['git_commit'] or 'none'}, recipe {lineage['recipe_digest']}",
            _approved(approval),
            *(f"review      {line}" for line in told["review"]),
        ]
    return parts


def _approved(approval: dict[str, Any]) -> str:
    if "refused" in approval:
        return f"approved    {approval['refused']}"
    mark = " (self-approved)" if approval["self_approved"] else ""
    under = f"{approval['time']}, under {approval['evaluation']}"
    return f"approved    by {approval['approver']}{mark}, {under}: {approval['reason']}"


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    shown = {"row": row["row"], **row["inputs"], **{f"→ {name}": value for name, value in row["outputs"].items()}}
    if row["label"] is not None:
        shown |= {"label": row["label"], "label after": str(timedelta(seconds=round(row["label_delay_s"])))}
    return {**shown, **row["outcomes"]}
