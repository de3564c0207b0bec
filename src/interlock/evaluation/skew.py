"""The skew check: what clients sent, beside what the version's extract says today of the same ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from interlock.core.clock import SystemClock, from_us, iso
from interlock.core.errors import InvalidData, NotFound
from interlock.core.project import Project
from interlock.evaluation.evaluate import Candidate
from interlock.evaluation.report import Subject
from interlock.evaluation.subjects import takes
from interlock.model.columns import to_lists
from interlock.warehouse.port import Value, Warehouse
from interlock.warehouse.skew import Differences, compare, question, sample

if TYPE_CHECKING:
    import pyarrow as pa

EXAMPLES = 10


class InputSkew(msgspec.Struct, frozen=True):
    """One raw input: rows compared, rows that differ, and their share."""

    name: str
    n: int
    mismatched: int
    share: float


class Example(msgspec.Struct, frozen=True):
    """One value that differs, as text; None = missing."""

    prediction_id: str
    row: int
    input: str
    served: str | None
    rebuilt: str | None


class Skew(msgspec.Struct, frozen=True):
    """Logged raw inputs rebuilt by the extract `sql` at `snapshot`, where its `id` is the logged `key`.

    requests: answered live ones there were to choose from. rows: of those chosen; found: of these, those in the extract.
    first, last: event times of the rows.
    """

    format: Literal[1]
    subject: Subject
    endpoint: str
    key: str
    id: str
    sql: str
    variables: dict[str, Value]
    snapshot: int
    requests: int
    rows: int
    found: int
    first: str
    last: str
    inputs: tuple[InputSkew, ...]
    examples: tuple[Example, ...]
    created: str


def check_skew(project: Project, warehouse: Warehouse, candidate: Candidate, endpoint: str, last: int | None) -> Skew:
    """Compare a sample of the endpoint's answered requests (of the newest `last`) with the candidate's extract.

    Raises:
        NotFound: no request was answered there.
        InvalidData: no logged key is an id of the extract, or the extract cannot be asked.
        Misconfigured: [skew] names no logged field.
    """
    settings, manifest = project.settings(), candidate.package.manifest
    query, key, inputs = question(manifest.lineage, settings), settings.skew.key, manifest.signature.inputs
    rows = sample(warehouse, endpoint, key, inputs, last=last)
    if not len(rows):
        raise NotFound(f"{endpoint} has answered no request yet", next=f"interlock predict {endpoint} --sample")
    snapshot, packages = warehouse.snapshot(), takes(project, rows.column("package_digest").to_pylist())
    found, compared = compare(warehouse, rows, query, inputs, packages, snapshot)
    if not found:
        raise InvalidData(
            f"none of {len(rows)} logged rows is in the extract: no {query.id} is {rows.column('key')[0].as_py()!r}, say",
            next="say in [skew] which field is the id, and with which variables; see docs/reference/evidence.md",
        )
    times = sorted(rows.column("event_time").to_pylist())
    differing = sorted((one for one in compared if one.mismatched), key=lambda one: -one.share)[:EXAMPLES]
    return Skew(
        format=1,
        subject=candidate.subject,
        endpoint=endpoint,
        key=key,
        id=query.id,
        sql=query.sql,
        variables=dict(query.variables),
        snapshot=snapshot,
        requests=rows.column("requests")[0].as_py(),
        rows=len(rows),
        found=found,
        first=iso(times[0]),
        last=iso(times[-1]),
        inputs=tuple(InputSkew(one.spec.name, len(one.rows), one.mismatched, round(one.share, 6)) for one in compared),
        examples=tuple(example for one in differing for example in _worst(rows, one, EXAMPLES // len(differing))),
        created=iso(SystemClock().now()),
    )


def _worst(rows: pa.Table, one: Differences, count: int) -> list[Example]:
    """The values of an input that are farthest apart."""
    worst = np.argsort(-one.apart, kind="stable")[: min(count, one.mismatched)]
    ids, numbers = (rows.column(name).take(one.rows[worst]).to_pylist() for name in ("prediction_id", "row"))
    served, rebuilt = (_texts(one, values[worst]) for values in (one.served, one.rebuilt))
    values = zip(ids, numbers, served, rebuilt, strict=True)
    return [Example(prediction_id, row, one.spec.name, a, b) for prediction_id, row, a, b in values]


def _texts(one: Differences, values: np.ndarray) -> list[str | None]:
    time = one.spec.type == "timestamp"
    (column,) = to_lists((one.spec,), [values])
    return [None if value is None else iso(from_us(value)) if time else str(value) for value in column]
