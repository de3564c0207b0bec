"""Feedback by unit: which prediction it is about.

It is the unit's last one at or before `at` and not before `since`, by event time, among those that a client named the unit
of and got a decision from. That is a function of what is in the tables, whatever came first: new feedback waits to be looked
at (`ambiguous` is null), and so does what was looked at before, once an earlier prediction of its unit comes.
"""

# ruff: noqa: S608 - an SQL name cannot be a parameter; ours are checked or quoted
from __future__ import annotations

from typing import TYPE_CHECKING

from interlock.warehouse.session import Engine, Session

if TYPE_CHECKING:
    import pyarrow as pa

SLICE = 20_000
"""Questions that are answered at once: they bound the memory, and the time that the write lock is held."""

Waiting = dict[str, bool]
"""Endpoint with feedback by unit, by table name → whether some of it may wait to be looked at."""

# $first and $last are constants, so that only files are read that may hold something.
ASKED_BEFORE = """
unit_id in (select unit_id from batch) and "at" >= make_timestamptz($first) and since <= make_timestamptz($last)
    and ambiguous is not null
"""
FOUND = f"select 1 from writer.interlock.feedback_{{endpoint}} where {ASKED_BEFORE} limit 1"
ASK_AGAIN = f"update writer.interlock.feedback_{{endpoint}} set ambiguous = null where {ASKED_BEFORE}"

TABLES = """
select substr(table_name, 10) from duckdb_columns()
where database_name = 'lake' and schema_name = 'interlock' and starts_with(table_name, 'feedback_')
    and column_name = 'unit_id'
"""
BY_UNIT = "select 1 from lake.interlock.feedback_{endpoint} where unit_id is not null limit 1"

ASKED = """
create or replace temp table asked as
select distinct unit_id, "at", since from lake.interlock.feedback_{endpoint}
where unit_id is not null and ambiguous is null order by "at", unit_id, since limit {slice}
"""

SPAN = """
select count(*), epoch_us(min(since)), epoch_us(max("at")) from asked
"""

# Ids are given at receipt, in order: of several at one time the last one that was received is the last.
MATCHES = """
with candidates as (
    select unit_id, event_time, max(prediction_id) as prediction_id, count(*) > 1 as ambiguous
    from lake.interlock.predictions_{endpoint}
    where event_time >= make_timestamptz($first) and event_time <= make_timestamptz($last)
        and unit_id in (select unit_id from asked) and role = 'live' and unit_source = 'client'
        and outcome in ('answered', 'fallback', 'refused')
    group by unit_id, event_time
), last as (
    select asked.*, candidates.event_time >= asked.since as found, prediction_id, ambiguous
    from asked asof left join candidates
        on asked.unit_id = candidates.unit_id and asked."at" >= candidates.event_time
)
select unit_id, "at", since, if(found, prediction_id, null) as prediction_id, if(found, 0, null) as "row",
    coalesce(found and ambiguous, false) as ambiguous
from last
"""

ANSWER = """
update writer.interlock.feedback_{endpoint} as feedback
set prediction_id = matches.prediction_id, "row" = matches."row", orphan = matches.prediction_id is null,
    ambiguous = matches.ambiguous
from matches
where feedback.unit_id = matches.unit_id and feedback."at" = matches."at" and feedback.since = matches.since
    and feedback.ambiguous is null
"""


def ask_again(session: Session, endpoint: str, batch: pa.Table) -> bool:
    """Let feedback wait that may be about the predictions of `batch`, just written; whether there is any."""
    import pyarrow.compute as pc

    if not {"unit_id", "event_time"} <= set(batch.column_names):
        return False
    ends = pc.min_max(batch.column("event_time"))
    span = {"first": ends["min"].value, "last": ends["max"].value}
    found = bool(session.rows(FOUND.format(endpoint=endpoint), span))
    if found:
        session.run(ASK_AGAIN.format(endpoint=endpoint), span)
    return found


def endpoints(engine: Engine) -> Waiting:
    """The endpoints that have feedback by unit; some of it may wait."""
    with engine.reading() as session:
        tables = [row[0] for row in session.rows(TABLES)]
        return {name: True for name in tables if session.rows(BY_UNIT.format(endpoint=name))}


def attribute(engine: Engine, endpoint: str) -> None:
    """Answer all feedback that waits. Nobody writes predictions or feedback meanwhile."""
    more = True
    while more:
        with engine.reading() as session:
            session.run(ASKED.format(endpoint=endpoint, slice=SLICE))
            ((count, first, last),) = session.rows(SPAN)
            if not count:
                return
            matches = session.table(MATCHES.format(endpoint=endpoint), {"first": first, "last": last})
        with engine.transaction() as session:
            session.register("matches", matches)
            session.run(ANSWER.format(endpoint=endpoint))
        more = count == SLICE
