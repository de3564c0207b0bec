"""`interlock predict` and `interlock feedback`: what a client does, from the command line."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from interlock.cli.gateway_client import post
from interlock.cli.output import Columns, Reply
from interlock.cli.release import sample_row
from interlock.cli.session import Session
from interlock.core.errors import InterlockError, InvalidData, InvalidRequest, Usage
from interlock.core.project import Project
from interlock.core.settings import parse_value
from interlock.model.package import read_manifest
from interlock.model.signature import Datatype
from interlock.registry.packages import PackageStore
from interlock.registry.routes import CHAMPION, RouteStore
from interlock.release.users import trust_of

BATCH = 1000
WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
ABOUT = ("prediction_id", "unit_id", "row", "at")


def predict(endpoint: str, /, *, session: Session, sample: bool = False, json_row: str = "", unit: str = "") -> Reply:
    """Ask a running endpoint for one prediction, as any client would.

    Args:
        endpoint: The endpoint.
        sample: Ask about a row that the champion's package brings along.
        json_row: Ask about this row: a JSON object of the raw inputs.
        unit: Whom it is about: the same unit always gets the same arm.
    """
    if sample == bool(json_row):
        raise Usage("ask about one row", next=f"interlock predict {endpoint} --sample")
    project = session.project
    row = (
        _row(json_row)
        if json_row
        else sample_row(project, RouteStore(project.routes).read(endpoint, trust_of(project)))
    )
    headers = {"x-interlock-unit": unit} if unit else {}
    answer = post(project, f"/endpoints/{endpoint}/invocations", {"dataframe_records": [row]}, headers)
    told = ("prediction_id", "model_version", "package_digest", "arm", "outcome")
    about = {name: answer.headers[f"x-interlock-{name.replace('_', '-')}"] for name in told}
    prediction = answer.document["predictions"][0]
    return Reply(
        {**about, "inputs": row, "predictions": answer.document["predictions"]},
        (
            Columns([prediction], tuple(prediction)),
            f"{about['outcome']} by {about['arm']}, version {about['model_version']}",
            f"prediction {about['prediction_id']}",
        ),
        f"interlock explain {about['prediction_id']}",
    )


def _row(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise Usage(f"--json-row is no JSON object: {error}", next="""as in --json-row '{"distance": 500}'""") from None


def load(file: Path, /, *, session: Session, to: str) -> Reply:
    """Send labels and outcomes that became known to an endpoint, through its gateway.

    Args:
        file: CSV with a column prediction_id or unit_id, or JSON lines: docs/reference/feedback.md.
        to: The endpoint.
    """
    project = session.project
    items = _json_lines(file) if file.suffix in (".jsonl", ".ndjson", ".json") else _csv(file, _label_type(project, to))
    accepted, last = 0, ""
    while batch := list(islice(items, BATCH)):
        try:
            accepted += post(project, f"/endpoints/{to}/feedback", batch).document["accepted"]
        except InterlockError as error:
            message = f"{file.name}, after {accepted} accepted items: {error.message}"
            step = (
                "mend it (items count from 0 behind the accepted ones) and load the file again: the latest value counts"
            )
            raise type(error)(message, next=step if isinstance(error, InvalidRequest) else error.next) from error
        last = batch[-1].get("prediction_id", "")
        session.progress(f"  {accepted} accepted")
    step = f"interlock explain {last}" if last else f"interlock predictions {to}"
    return Reply({"endpoint": to, "accepted": accepted}, (f"{accepted} accepted",), step)


def _label_type(project: Project, endpoint: str) -> Datatype:
    """How the endpoint's answers write a label: CSV cannot tell `1` from `"1"`."""
    digest = RouteStore(project.routes).read(endpoint, trust_of(project)).arm(CHAMPION).package_digest
    signature = read_manifest(PackageStore(project.packages).find(digest), digest).signature
    return signature.label_datatype if signature.classes else "FP64"


def _csv(file: Path, label: Datatype) -> Iterator[dict[str, Any]]:
    with _opened(file) as lines:
        for number, cells in enumerate(csv.DictReader(lines), 2):
            where = f"{file.name}, line {number}"
            values = {name: text for name, text in cells.items() if text}
            item: dict[str, Any] = {name: values.pop(name) for name in ABOUT if name in values}
            if None in cells or not item.keys() & {"prediction_id", "unit_id"}:
                raise InvalidData(
                    f"{where}: expected prediction_id or unit_id, and a value a column", next="add the header"
                )
            if "prediction_id" in item:
                item.pop("unit_id", None)
            if "row" in item:
                item["row"] = parse_value(item["row"])
            if "name" in cells:
                name, value = values.pop("name", ""), values.pop("value", "")
                if not name or not value:
                    raise InvalidData(f"{where}: expected a name and a value", next="leave out lines without")
                values[name] = value
            if "label" in values:
                item["label"] = _label(values.pop("label"), label, where)
            yield item | {"outcomes": {name: parse_value(text) for name, text in values.items()}}


def _label(text: str, kind: Datatype, where: str) -> str | float | bool:
    if kind == "BYTES":
        return text
    try:
        value = WORDS[text.lower()] if kind == "BOOL" else float(text)
    except (KeyError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise InvalidData(f"{where}: the label {text!r} is no {kind}", next="write it as the answers do")
    return value


def _json_lines(file: Path) -> Iterator[dict[str, Any]]:
    with _opened(file) as lines:
        for number, line in enumerate(lines, 1):
            try:
                if line.strip():
                    yield msgspec.json.decode(line, type=dict[str, Any])
            except msgspec.DecodeError as error:
                raise InvalidData(f"{file.name}, line {number}: {error}", next="one JSON object a line") from None


def _opened(file: Path) -> Any:
    try:
        return file.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise Usage(
            f"{file} cannot be read: {error.strerror}", next="interlock feedback load FILE --to ENDPOINT"
        ) from None
