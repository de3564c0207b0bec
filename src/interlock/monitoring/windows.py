"""Windows of event time in UTC, what the log holds in them, and which of them are over.

The endpoint's clock is the latest event time, or now less the shortest time from event to receipt if that is later: so a
window also ends when no more requests come, and a replay of old events is judged as it would have been then.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal, assert_never

from msgspec import Struct

from interlock.core.clock import from_us
from interlock.core.project import snake
from interlock.warehouse.port import Warehouse

Unit = Literal["hour", "day", "week", "month"]
LATE = timedelta(hours=1)
"""Rows that reach the warehouse so long after a pass may have been received before it."""
RECENT = timedelta(minutes=1)
PAST = 26
BEGINNING = from_us(0)

# Windows with rows that a pass may not have seen.
TOUCHED = """
select distinct date_trunc($unit, make_timestamp(epoch_us(event_time))) as start
from interlock.PREDICTIONS
where role = 'live' and event_time <= received_at + interval 366 days
      and (event_time >= $after or received_at > $since)
order by start
"""

# What these windows hold, by the version that served it. An event time of more than a year after its receipt is a client's
# mistake: it must not end every window that is still to come.
WINDOWS = """
select date_trunc($unit, make_timestamp(epoch_us(event_time))) as start, version, package_digest, count(*) as rows,
       count(*) filter ("row" = 0) as requests, count(*) filter (outcome = 'answered') as answered,
       count(*) filter (received_at > $recent) as fresh, epoch_us(max(event_time)) as latest_us,
       min(epoch_us(received_at) - epoch_us(event_time)) as delay_us
from interlock.PREDICTIONS
where role = 'live' and event_time <= received_at + interval 366 days and event_time >= $first and event_time < $end
      and date_trunc($unit, make_timestamp(epoch_us(event_time))) in (select unnest($starts))
group by all order by start, answered desc, version
"""


class Window(Struct, frozen=True):
    """One window: its live rows and requests, and the version that answered most of its rows (None: nobody answered).

    fresh: rows received in the last minute.
    """

    start: datetime
    end: datetime
    rows: int
    requests: int
    fresh: int
    version: int | None
    package_digest: str

    def over(self, clock: datetime) -> bool:
        """Whether the clock has passed it and its rows have all but stopped coming: under 1 % in the last minute.

        One request with a late event time ends no window that a replay is still filling.
        """
        return self.end <= clock and self.fresh * 100 <= self.rows


class Seen(Struct, frozen=True):
    """What is new in the log: windows by start, in order, and the endpoint's clock (None: no request yet)."""

    windows: Mapping[datetime, Window]
    clock: datetime | None


def look(warehouse: Warehouse, endpoint: str, unit: Unit, after: datetime, last_pass: datetime, now: datetime) -> Seen:
    """The windows from `after` on, and older ones that got rows since the last pass."""
    name = f"predictions_{snake(endpoint)}"
    since = max(last_pass - LATE, BEGINNING)
    touched = warehouse.query(
        TOUCHED.replace("PREDICTIONS", name), {"unit": unit, "after": after, "since": since}
    ).to_pylist()  # fmt: skip
    starts = [row["start"] for row in touched]
    if not starts:
        return Seen({}, None)
    first, end = starts[0].replace(tzinfo=UTC), end_of(starts[-1], unit).replace(tzinfo=UTC)
    rows = warehouse.query(
        WINDOWS.replace("PREDICTIONS", name), {"unit": unit, "first": first, "end": end, "starts": starts, "recent": now - RECENT}
    ).to_pylist()  # fmt: skip
    latest, delay = max(row["latest_us"] for row in rows), min(row["delay_us"] for row in rows)
    return Seen(_windows(rows, unit), max(from_us(latest), now - timedelta(microseconds=delay)))


def _windows(rows: list[dict[str, Any]], unit: Unit) -> dict[datetime, Window]:
    windows = {}
    for at, group in groupby(rows, key=itemgetter("start")):
        parts = list(group)
        most = parts[0]  # they come by the rows that were answered
        start = at.replace(tzinfo=UTC)
        windows[start] = Window(
            start=start,
            end=end_of(start, unit),
            rows=sum(part["rows"] for part in parts),
            requests=sum(part["requests"] for part in parts),
            fresh=sum(part["fresh"] for part in parts),
            version=most["version"] if most["answered"] else None,
            package_digest=most["package_digest"],
        )
    return windows


def end_of(start: datetime, unit: Unit) -> datetime:
    """Where the window that begins at `start` ends and the next begins."""
    match unit:
        case "hour":
            return start + timedelta(hours=1)
        case "day":
            return start + timedelta(days=1)
        case "week":
            return start + timedelta(days=7)
        case "month":
            return (start + timedelta(days=31)).replace(day=1)
        case _:
            assert_never(unit)


def like(start: datetime, unit: Unit, past: Mapping[datetime, int]) -> list[int]:
    """The latest 26 earlier windows to compare with: the same hour of the week, the same weekday, any week, any month."""
    step = timedelta(microseconds=1) if unit in ("week", "month") else timedelta(days=7)
    return [past[other] for other in sorted(past) if other < start and not (start - other) % step][-PAST:]
