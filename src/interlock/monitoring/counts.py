"""Rows of windows counted into the bins of a training profile, inside the warehouse."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from interlock.core.project import snake
from interlock.model.profile import Numeric, Values
from interlock.monitoring.windows import Unit, Window
from interlock.warehouse.port import Warehouse

# A number into the profile's bins: a value on an edge belongs to the bin below it, as in `model.profile`.
NUMBERS = """
select date_trunc($unit, make_timestamp(epoch_us(event_time))) as start, count(*) as n, count(COLUMN) as known,
       histogram(COLUMN::double, $edges::double[]) as bins
from interlock.PREDICTIONS
where role = 'live' and outcome = 'answered' and ($version is null or version = $version)
      and event_time >= $first and event_time < $end
      and date_trunc($unit, make_timestamp(epoch_us(event_time))) in (select unnest($starts))
group by start
"""

# Texts, truth values and labels: how often each known value comes; null is everything else that is not missing.
TEXTS = """
with known as (
    select unnest($values::varchar[]) as value
), seen as (
    select date_trunc($unit, make_timestamp(epoch_us(event_time))) as start, (COLUMN)::varchar as value
    from interlock.PREDICTIONS
    where role = 'live' and outcome = 'answered' and ($version is null or version = $version)
          and event_time >= $first and event_time < $end
          and date_trunc($unit, make_timestamp(epoch_us(event_time))) in (select unnest($starts))
)
select start, known.value as value, seen.value is null as missing, count(*) as n
from seen left join known on known.value = seen.value group by all
"""

Counts = dict[datetime, list[int]]
"""By window start: rows a bin."""


class Log:
    """The answered live rows of one endpoint in some windows of one length."""

    def __init__(self, warehouse: Warehouse, endpoint: str, unit: Unit, windows: Sequence[Window]) -> None:
        self._warehouse = warehouse
        self._table = f"predictions_{snake(endpoint)}"
        self._starts = [window.start for window in windows]
        self._parameters: dict[str, Any] = {
            "unit": unit,
            "first": min(self._starts),
            "end": max(window.end for window in windows),
            "starts": [start.replace(tzinfo=None) for start in self._starts],
        }

    def bins(self, column: str, profile: Numeric | Values, version: int | None = None) -> Counts:
        """Counts in the profile's bins, then "new" (of values), then missing; of one version's rows, or of all."""
        if isinstance(profile, Numeric):
            return self._numbers(column, profile.edges, version)
        return self.values(column, list(profile.counts), version)

    def values(self, column: str, values: list[str], version: int | None = None) -> Counts:
        """Counts of these values, then of all others, then missing."""
        counts = {start: [0] * (len(values) + 2) for start in self._starts}
        place = {value: at for at, value in enumerate(values)}
        for row in self._ask(TEXTS, column, version, values=values):
            at = -1 if row["missing"] else place.get(row["value"], len(values))
            counts[row["start"].replace(tzinfo=UTC)][at] += row["n"]
        return counts

    def _numbers(self, column: str, edges: tuple[float, ...], version: int | None) -> Counts:
        counts = {start: [0] * (len(edges) + 2) for start in self._starts}
        for row in self._ask(NUMBERS, column, version, edges=list(edges)):
            bins = dict(row["bins"] or ())
            inner = [bins.get(edge, 0) for edge in edges]
            counts[row["start"].replace(tzinfo=UTC)] = [*inner, row["known"] - sum(inner), row["n"] - row["known"]]
        return counts

    def _ask(self, sql: str, column: str, version: int | None, **parameters: Any) -> list[dict[str, Any]]:
        sql = sql.replace("PREDICTIONS", self._table).replace("COLUMN", column)
        rows: list[dict[str, Any]] = self._warehouse.query(
            sql, {**self._parameters, "version": version, **parameters}
        ).to_pylist()  # fmt: skip
        return rows


def quoted(name: str) -> str:
    """A column's name as SQL."""
    return '"' + name.replace('"', '""') + '"'
