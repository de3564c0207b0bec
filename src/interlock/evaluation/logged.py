"""The logged requests of an endpoint as columns, page by page, all as they were at one snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct

from interlock.core.errors import NotFound, Usage
from interlock.core.project import snake
from interlock.core.settings import Logical
from interlock.evaluation.metrics import Array
from interlock.model.signature import Signature
from interlock.warehouse.port import Warehouse
from interlock.warehouse.session import quoted

if TYPE_CHECKING:
    import pyarrow as pa

PAGE_ROWS, PAGE_NUMBERS = 50_000, 1_000_000
"""Of a page, at the most: rows, and numbers that a model gives for them."""
VALUES = 30
MISSING, OTHER = "(missing)", "(other)"
NUMBERS = ("DOUBLE", "BIGINT", "INTEGER", "BOOLEAN")
READABLE: dict[Logical, tuple[str, ...]] = {
    "float": ("DOUBLE", "BIGINT"),
    "int": ("BIGINT",),
    "bool": ("BOOLEAN",),
    "string": ("VARCHAR",),
    "category": ("VARCHAR",),
    "timestamp": ("TIMESTAMP WITH TIME ZONE",),
}
"""Logical type of an input → the SQL types of logged columns that it can be read from."""

# A request is where its event time is; $first is an id, and ids are ordered by time.
RANGE = """
role = 'live' and event_time >= $since::timestamptz and event_time < $until::timestamptz and prediction_id >= $first::uuid
"""

LAST = """
select prediction_id::varchar as id from interlock.predictions_ENDPOINT
where RANGE and "row" = 0 order by prediction_id desc limit 1 offset $before
"""

# Who answered under which revision in which gateway, and how often each input was there.
KINDS = """
select hash(package_digest, gateway, route_revision) as kind, package_digest, gateway::varchar as gateway, route_revision,
    model, version, count(*) as rows, count(*) filter ("row" = 0) as requests,
    count(*) filter (outcome <> 'invalid') as kept,
    epoch_us(min(event_time)) as first, epoch_us(max(event_time)) as last COUNTS
from interlock.predictions_ENDPOINT where RANGE group by all
"""

# All rows of a request were received at once, so whole seconds are whole requests.
SECONDS = """
select min(second) as second from (
    select second, (sum(n) over (order by second) - n) // $rows as page from (
        select epoch_us(received_at) // 1000000 as second, count(*) as n
        from interlock.predictions_ENDPOINT where RANGE group by all
    )
) group by page order by 1
"""

FREQUENT = """
select COLUMN::varchar as value, count(*) as n from interlock.predictions_ENDPOINT
where RANGE and COLUMN is not null group by 1 order by n desc, 1 limit $values
"""

# The semi-join hands the page's ids to the scan of the feedback. The latest value of a name counts, as in the view of outcomes.
PAGE = """
with page as (
    select prediction_id, "row", unit_id, epoch_us(event_time) as event_us, outcome, reason,
        hash(package_digest, gateway, route_revision) as kind COLUMNS
    from interlock.predictions_ENDPOINT
    where RANGE and received_at >= to_timestamp($from_second) and received_at < to_timestamp($to_second)
), said as (
    select prediction_id, "row", name, value_num, value_text,
        epoch_us(received_at)::hugeint * 9223372036854775808 + position as moment
    from interlock.feedback_ENDPOINT
    where name in ('label', $value) and prediction_id in (select prediction_id from page)
), told as (
    select prediction_id, "row", arg_max_null(value_num, moment) filter (name = 'label') as label_num,
        arg_max_null(value_text, moment) filter (name = 'label') as label_text,
        arg_max_null(value_num, moment) filter (name = $value) as told
    from said group by all
)
select page.* exclude (prediction_id), prediction_id::varchar as id, label_num, label_text, WORTH as worth
from page left join told using (prediction_id, "row") order by prediction_id, "row"
"""


class Span(Struct, frozen=True):
    """Which requests: by event time, ISO with an offset, and of those the newest `last`; None = all."""

    since: str | None = None
    until: str | None = None
    last: int | None = None


class RequestLog:
    """What the log of an endpoint holds for models of these signatures. `kinds`: rows of KINDS; `types`: of its columns."""

    def __init__(
        self,
        warehouse: Warehouse,
        endpoint: str,
        span: Span,
        signatures: list[Signature],
        slices: list[str],
        value: str,
    ) -> None:
        """Look what is there.

        Raises:
            NotFound: no request lies in the range.
            Usage: a slice was never logged, or the value is no number that was.
        """
        self._warehouse, self._endpoint, self.value = warehouse, snake(endpoint), value
        tables = {one.name: one.columns for one in warehouse.tables()}
        self.types = tables[f"interlock.predictions_{self._endpoint}"]
        self.snapshot = warehouse.snapshot()
        nil = "00000000-0000-0000-0000-000000000000"
        self._range = {"since": span.since or "-infinity", "until": span.until or "infinity", "first": nil}
        if span.last is not None and (found := self._table(LAST, before=span.last - 1).to_pylist()):
            self._range["first"] = found[0]["id"]
        names = dict.fromkeys(f"in_{spec.name}" for one in signatures for spec in one.inputs)
        self._inputs = [name for name in names if name in self.types]
        counts = "".join(f", count({quoted(name)}) as {quoted(name)}" for name in self._inputs)
        self.kinds: list[dict[str, Any]] = self._table(KINDS, COUNTS=counts).to_pylist()
        if not self.kinds:
            raise NotFound(f"no request of {endpoint} lies in this range", next=f"interlock predictions {endpoint}")
        self._worth = self._worth_of(value)
        self._page_rows = min(PAGE_ROWS, PAGE_NUMBERS // signatures[0].width)
        self.slices = {name: [*self._frequent(name), MISSING, OTHER] for name in slices}
        """Column → its most frequent values, then the missing and the other ones."""

    def pages(self) -> Iterator[pa.Table]:
        """The rows, ordered by prediction id and row; whole requests, about PAGE_ROWS at a time."""
        columns = [
            f"epoch_us({quoted(name)}) as {quoted(name)}" if self.types[name].startswith("TIMESTAMP") else quoted(name)
            for name in (*self._inputs, *(name for name in self.types if name.startswith("out_")))
        ]
        given: dict[str, object] = {"value": self.value}
        for i, (name, values) in enumerate(self.slices.items()):
            given[f"slice_{i}"] = values[:-2]
            found = f"nullif(list_position($slice_{i}::varchar[], {quoted(f'in_{name}')}::varchar), 0) - 1"
            missing = f"case when {quoted(f'in_{name}')} is null then {len(values) - 2} else {len(values) - 1} end"
            columns.append(f"coalesce({found}, {missing})::bigint as slice_{i}")
        parts = {"WORTH": self._worth, "COLUMNS": "".join(f", {one}" for one in columns)}
        seconds = self._table(SECONDS, rows=self._page_rows).column("second").to_pylist()
        for start, end in pairwise([*seconds, seconds[-1] + 10**9]):
            yield self._table(PAGE, **parts, **given, from_second=start, to_second=end)

    def kinds_of(self, table: pa.Table) -> Array:
        """For each row of a page the position of its kind."""
        kinds = np.array([kind["kind"] for kind in self.kinds], np.uint64)
        order = np.argsort(kinds)
        found: Array = order[np.searchsorted(kinds, table.column("kind").to_numpy(), sorter=order)]
        return found

    def _worth_of(self, value: str) -> str:
        name = f"in_{value}"
        if self.types.get(name) in NUMBERS:
            return f"page.{quoted(name)}::double"
        feedback = "select 1 from interlock.feedback_ENDPOINT where name = $value and value_num is not null limit 1"
        sql = feedback.replace("ENDPOINT", self._endpoint)
        if value and not len(self._warehouse.query(sql, {"value": value}, snapshot=self.snapshot)):
            raise Usage(f"--value {value}: neither a raw input that is a number nor an outcome in the feedback")
        return "told"

    def _frequent(self, name: str) -> list[str]:
        if f"in_{name}" not in self.types:
            logged = ", ".join(one[3:] for one in self.types if one.startswith("in_"))
            raise Usage(f"--slice {name}: no raw input of that name was logged (there: {logged})")
        found = self._table(FREQUENT, COLUMN=quoted(f"in_{name}"), values=VALUES)
        return [str(value) for value in found.column("value").to_pylist()]

    def _table(self, sql: str, **given: object) -> pa.Table:
        """Upper-case names are put into the SQL (columns last: they may be called anything), others are bound."""
        sql = sql.replace("RANGE", RANGE).replace("ENDPOINT", self._endpoint)
        for name in [name for name in given if name.isupper()]:
            sql = sql.replace(name, str(given.pop(name)))
        return self._warehouse.query(sql, {**self._range, **given}, snapshot=self.snapshot)
