"""The prediction log in the warehouse: its tables, how a batch gets in, the view of outcomes, feedback without a prediction."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from interlock.core.errors import InvalidData
from interlock.warehouse import attribution
from interlock.warehouse.session import Engine, Session, columns_of, quoted

if TYPE_CHECKING:
    import pyarrow as pa

    from interlock.warehouse.staging import Staged

PREDICTIONS = {
    "prediction_id": "UUID",
    "row": "INTEGER",
    "role": "VARCHAR",
    "request_id": "VARCHAR",
    "received_at": "TIMESTAMP WITH TIME ZONE",
    "event_time": "TIMESTAMP WITH TIME ZONE",
    "endpoint": "VARCHAR",
    "unit_id": "VARCHAR",
    "unit_source": "VARCHAR",
    "experiment": "VARCHAR",
    "phase": "INTEGER",
    "arm": "VARCHAR",
    "propensity": "DOUBLE",
    "model": "VARCHAR",
    "version": "INTEGER",
    "package_digest": "VARCHAR",
    "route_revision": "INTEGER",
    "outcome": "VARCHAR",
    "reason": "VARCHAR",
    "rules": "VARCHAR[]",
    "latency_ms": "DOUBLE",
    "model_latency_ms": "DOUBLE",
    "gateway": "UUID",
    "seq": "BIGINT",
}
"""Every `predictions_<endpoint>` begins with these; `in_<name>` and `out_<name>` follow as they are first logged."""

FEEDBACK = {
    "prediction_id": "UUID",
    "row": "INTEGER",
    "name": "VARCHAR",
    "value_num": "DOUBLE",
    "value_text": "VARCHAR",
    "at": "TIMESTAMP WITH TIME ZONE",
    "received_at": "TIMESTAMP WITH TIME ZONE",
    "position": "BIGINT",
    "orphan": "BOOLEAN",
    "unit_id": "VARCHAR",
    "since": "TIMESTAMP WITH TIME ZONE",
    "ambiguous": "BOOLEAN",
}
"""`position`: in its journal segment; with `received_at` it says which of two values came later. The last three are of
feedback by unit, whose `prediction_id` and `row` `attribution` finds; `ambiguous` is null until it has looked."""

OUTCOMES = """
-- Live rows with what was said about them since. The latest value of a name counts: by received_at, then journal position.
--   label, label_num: the label as a number (a boolean is 0 or 1); label_text: as text; null while there is none
--   label_at, label_received_at; label_delay_s: seconds from event_time to label_at; outcomes: all other names → number
--   label_ambiguous: it was said by unit, and the unit's last prediction was not one row
--   mature: old enough, against the endpoint's watermark max(event_time), that 99 of 100 labels seen had come by that age
create or replace view writer.interlock.outcomes_{endpoint} as
with said as (
    select prediction_id, "row", name, value_num, value_text, "at", received_at, ambiguous,
        epoch_us(received_at)::hugeint * 9223372036854775808 + position as moment
    from interlock.feedback_{endpoint}
), labels as (
    select prediction_id, "row", arg_max_null(value_num, moment) as num, arg_max_null(value_text, moment) as text,
        arg_max_null("at", moment) as "at", max(received_at) as received_at,
        arg_max_null(ambiguous, moment) as ambiguous
    from said where name = 'label' group by all
), others as (
    select prediction_id, "row", map(list(name), list(num)) as outcomes
    from (
        select prediction_id, "row", name, arg_max_null(value_num, moment) as num
        from said where name <> 'label' group by all
    ) group by all
), joined as (
    select p.*, l.num as label, l.num as label_num, l.text as label_text, l."at" as label_at,
        l.received_at as label_received_at, epoch(l."at") - epoch(p.event_time) as label_delay_s, o.outcomes,
        coalesce(l.ambiguous, false) as label_ambiguous
    from interlock.predictions_{endpoint} p
    left join labels l using (prediction_id, "row")
    left join others o using (prediction_id, "row")
    where p.role = 'live'
)
select joined.*, coalesce(event_time + to_seconds(horizon) <= watermark, false) as mature
from joined
cross join (select max(event_time) as watermark, quantile_disc(label_delay_s, 0.99) as horizon from joined)
"""

ADD_FILE = "call ducklake_add_data_files('writer', ?, ?, schema => 'interlock', allow_missing => true)"

ADD_FEEDBACK = """
-- The inner semi-join hands the batch's ids to the scan: ids are ordered by time, so only files of that time are read.
insert into writer.interlock.feedback_{endpoint} by name
select batch.*, batch.prediction_id not in (
    select prediction_id from writer.interlock.predictions_{endpoint}
    where prediction_id in (select prediction_id from batch)
) as orphan
from batch where prediction_id is not null
"""

# In a file of its own, which goes as a whole when its rows are updated.
ADD_UNITS_FEEDBACK = """
insert into writer.interlock.feedback_{endpoint} by name
select batch.*, true as orphan from batch where prediction_id is null
"""

FOUND_LATER = """
select distinct prediction_id::varchar from lake.interlock.predictions_{endpoint}
where prediction_id in (select prediction_id from lake.interlock.feedback_{endpoint} where orphan)
"""

NO_ORPHAN = """
update writer.interlock.feedback_{endpoint} set orphan = false
where orphan and prediction_id in (select unnest($ids)::uuid)
"""

_LOG_TABLE = re.compile(r"(predictions|feedback)_([a-z0-9_]+)")
_SLICE = 2000

Known = dict[str, dict[str, str]]


def as_files(tables: Mapping[str, pa.Table]) -> list[str]:
    """The tables whose rows are committed as a file; feedback looks for its predictions on its way in."""
    return [name for name, table in tables.items() if len(table) and _kind(name)[0] != "feedback"]


def append(session: Session, staged: Staged, known: Known, by_unit: attribution.Waiting) -> None:
    """Write the rows of a batch. `known`: columns of tables met before, which nobody ever drops or changes."""
    there = [name for name, rows in staged.items() if len(rows)]
    for table in sorted(there, reverse=True):  # predictions before the feedback that looks for them
        session.register("batch", staged[table])
        columns = {
            name: "VARCHAR" if kind.startswith("ENUM(") else kind  # Arrow's dictionaries
            for name, kind, *_ in session.rows("describe batch")
        }
        kind, endpoint = _kind(table)
        if kind:
            _make_room(session, f"feedback_{endpoint}", FEEDBACK, known)
        _make_room(session, table, columns, known)
        if kind == "feedback":
            without_id = staged[table].column("prediction_id").null_count
            if without_id < len(staged[table]):
                session.run(ADD_FEEDBACK.format(endpoint=endpoint))
            if without_id:
                session.run(ADD_UNITS_FEEDBACK.format(endpoint=endpoint))
                by_unit[endpoint] = True
        else:
            session.run(ADD_FILE, [table, str(staged.files[table])])
            if endpoint in by_unit:
                by_unit[endpoint] |= attribution.ask_again(session, endpoint, staged[table])


def _make_room(session: Session, table: str, wanted: Mapping[str, str], known: Known) -> None:
    if wanted.items() <= known.get(table, {}).items():
        return
    there = _lower(columns_of(session, "writer", "interlock", table))
    if not there:
        _create(session, table, wanted)
        there = _lower(columns_of(session, "writer", "interlock", table))
    missing = {name: kind for name, kind in wanted.items() if name.lower() not in there}
    for name, now in wanted.items():
        before = there.get(name.lower(), now)
        if before != now:
            what = f"input {name[3:]!r}" if name.startswith("in_") else f"column {name!r}"
            raise InvalidData(
                f"{what} of {table} was logged as {before} before, now {now}", next="give the input a new name"
            )
    for name, declared in missing.items():
        session.run(f"alter table {_path(table)} add column {quoted(name)} {declared}")
    kind, endpoint = _kind(table)
    if missing and kind:  # the view keeps the columns that it was made with
        session.run(OUTCOMES.format(endpoint=endpoint))
    known[table] = {**known.get(table, {}), **wanted}


def _create(session: Session, table: str, columns: Mapping[str, str]) -> None:
    kind, endpoint = _kind(table)
    if not kind:
        session.run(f"create table {_path(table)} ({_declared(columns)})")
        return
    session.run(f"create table {_path(f'predictions_{endpoint}')} ({_declared(PREDICTIONS)})")
    session.run(f"create table {_path(f'feedback_{endpoint}')} ({_declared(FEEDBACK)})")
    session.run(OUTCOMES.format(endpoint=endpoint))


def clear_orphans(engine: Engine, endpoint: str) -> int:
    """Clear the flag of feedback whose prediction came after it; the number of predictions."""
    with engine.reading() as session:
        ids = [row[0] for row in session.rows(FOUND_LATER.format(endpoint=endpoint))]
    for start in range(0, len(ids), _SLICE):
        with engine.transaction() as session:
            session.run(NO_ORPHAN.format(endpoint=endpoint), {"ids": ids[start : start + _SLICE]})
    return len(ids)


def _kind(table: str) -> tuple[str, str]:
    """`predictions` or `feedback` and the endpoint; twice nothing for other tables of the log."""
    match = _LOG_TABLE.fullmatch(table)
    return (match[1], match[2]) if match else ("", "")


def _path(table: str) -> str:
    return f"writer.interlock.{quoted(table)}"


def _declared(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{quoted(name)} {kind}" for name, kind in columns.items())


def _lower(columns: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): kind for name, kind in columns.items()}
