"""Logged raw inputs beside the rows that an extract gives today for the same ids; and how busy the log is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from interlock.core.errors import Misconfigured
from interlock.core.project import snake
from interlock.core.settings import Settings
from interlock.model.columns import Array
from interlock.model.frames import from_frame
from interlock.model.manifest import Lineage
from interlock.model.signature import Input
from interlock.model.skew import apart
from interlock.warehouse.port import ExtractQuery, Warehouse
from interlock.warehouse.session import quoted

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

REQUESTS, ROWS = 1000, 50_000
SEED = "2013"
SHARED = ("request_id", "unit_id")

# Whole answered requests of one package or of all, chosen by a hash of their id: the same log gives the same ones.
SAMPLE = """
with there as (
    select prediction_id from interlock.TABLE
    where role = 'live' and outcome = 'answered' and "row" = 0 and ($package = '' or package_digest = $package)
        and event_time >= $first::timestamptz and event_time < $end::timestamptz
    order by prediction_id desc limit $last
), chosen as (
    select prediction_id from there order by md5(concat(prediction_id, $seed)) limit $requests
)
select prediction_id::varchar as prediction_id, "row", package_digest, event_time, KEY as key,
    (select count(*) from there) as requests INPUTS
from interlock.TABLE
where role = 'live' and outcome = 'answered' and prediction_id in (select prediction_id from chosen)
order by prediction_id, "row" limit $rows
"""
# The rows of a request share its id and its unit, so where there are several these say nothing about a row.
OF_ONE_ROW = """case when max("row") over (partition by prediction_id) = 0 then FIELD end"""

BUSIEST = """
select coalesce(max(n), 0) / 3600 as rate from (
    select count(*) as n from interlock.TABLE where role = 'live' and "row" = 0 group by date_trunc('hour', received_at)
)
"""


class Differences(NamedTuple):
    """One input: places in the sample of the rows compared, how far apart they are, the values of both sides."""

    spec: Input
    rows: Array
    apart: Array
    served: Array
    rebuilt: Array

    @property
    def mismatched(self) -> int:
        """Rows that differ."""
        return int(np.count_nonzero(self.apart))

    @property
    def share(self) -> float:
        """Of the rows compared; 0 where there are none."""
        return self.mismatched / max(len(self.rows), 1)


def question(lineage: Lineage, settings: Settings) -> ExtractQuery:
    """What is asked for a version's inputs: its own extract, or the project's where its own reads the log itself."""
    asked = ExtractQuery(lineage.sql, lineage.variables, lineage.id, lineage.event_time, lineage.label)
    if not lineage.id or any(name.startswith("interlock.") for name in lineage.sources):
        own = settings.extract
        asked = ExtractQuery(own.sql, own.variables, own.id, own.event_time, own.label)
    return msgspec.structs.replace(asked, variables={**asked.variables, **settings.skew.variables})


def sample(
    warehouse: Warehouse,
    endpoint: str,
    key: str,
    inputs: Sequence[Input],
    *,
    requests: int = REQUESTS,
    first: str = "-infinity",
    end: str = "infinity",
    last: int | None = None,
    package: str = "",
) -> pa.Table:
    """Some answered live requests, whole: prediction_id, row, package_digest, event_time, key, requests (of how many they
    were chosen), and `in_<name>` of those inputs that were ever logged.

    Of those in [first, end) by event time the newest `last`, of one package (empty: of all).

    Raises:
        Misconfigured: `key` is neither `request_id` nor `unit_id` nor one of the inputs.
    """
    table = f"predictions_{snake(endpoint)}"
    logged = next(one.columns for one in warehouse.tables() if one.name == f"interlock.{table}")
    names = [f"in_{spec.name}" for spec in inputs if f"in_{spec.name}" in logged]
    if key not in SHARED and f"in_{key}" not in names:
        raise Misconfigured(
            f"[skew] key = {key!r} is neither request_id nor unit_id nor an input that was logged",
            next="name what equals the extract's id; see docs/reference/evidence.md",
        )
    field = OF_ONE_ROW.replace("FIELD", key) if key in SHARED else f"{quoted(f'in_{key}')}::varchar"
    sql = SAMPLE.replace("TABLE", table).replace("KEY", field)
    given = {"requests": requests, "first": first, "end": end, "last": last, "package": package}
    sql = sql.replace("INPUTS", "".join(f", {quoted(name)}" for name in names))
    return warehouse.query(sql, {**given, "seed": SEED, "rows": ROWS})


def compare(
    warehouse: Warehouse,
    rows: pa.Table,
    query: ExtractQuery,
    inputs: Sequence[Input],
    takes: Mapping[str, set[str]],
    snapshot: int,
) -> tuple[int, list[Differences]]:
    """How many rows of a sample are in the extract at a snapshot, and how their inputs differ.

    `takes`: the inputs of each package that answered; what it did not take it did not log.

    Raises:
        InvalidData: the extract cannot be asked, or has no column of an input.
    """
    keys = rows.column("key").to_pylist()
    table = warehouse.rows_of(query, sorted({key for key in keys if key is not None}), snapshot=snapshot)
    place = {str(one): at for at, one in enumerate(table.column(query.id).to_pylist())}
    at = np.array([place.get(key, -1) for key in keys], np.int64)
    packages = np.array(rows.column("package_digest").to_pylist(), object)
    served, rebuilt = rows.to_pandas(), table.to_pandas()
    differences = []
    for spec in inputs:
        taken = np.isin(packages, [name for name, names in takes.items() if spec.name in names])
        some = np.flatnonzero((at >= 0) & taken)
        ours = _values(spec, served.iloc[some], f"in_{spec.name}") if len(some) else np.empty(0)
        theirs = _values(spec, rebuilt.iloc[at[some]], spec.name) if len(some) else np.empty(0)
        differences.append(Differences(spec, some, apart(spec, ours, theirs), ours, theirs))
    return int((at >= 0).sum()), differences


def _values(spec: Input, frame: pd.DataFrame, column: str) -> Array:
    """As they travel; a value that is missing although it must not be is a difference, not an error."""
    named = frame[[column]].set_axis([spec.name], axis=1) if column in frame else frame[[]]
    missing = bool(named.isna().to_numpy().any())
    (values,) = from_frame((msgspec.structs.replace(spec, nullable=missing),), named)
    return values


def has_log(warehouse: Warehouse, endpoint: str) -> bool:
    """Whether a request of the endpoint was ever recorded."""
    return f"interlock.predictions_{snake(endpoint)}" in {table.name for table in warehouse.tables()}


def busiest_hour(warehouse: Warehouse, endpoint: str) -> float:
    """Live requests a second in the busiest hour of the log, on average over the hour."""
    sql = BUSIEST.replace("TABLE", f"predictions_{snake(endpoint)}")
    return float(warehouse.query(sql).column("rate")[0].as_py())
