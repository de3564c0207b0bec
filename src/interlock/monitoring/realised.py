"""Predicted against realised changes: what the signed decision diff said, beside what both versions say to live requests.

Counting is by hours of receipt. Hours in which rows may still come are counted again at each pass, older ones are sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Literal

import msgspec
from sqlalchemy import select

from interlock.core.clock import iso, parse_time
from interlock.core.project import Project
from interlock.monitoring import alerts
from interlock.monitoring import readings as kept
from interlock.monitoring.drift import MIN_ROWS
from interlock.monitoring.pairs import Counts, Pairs, Release, releases
from interlock.monitoring.proportions import Share, design_effect, predicted, watched
from interlock.monitoring.readings import Reading
from interlock.monitoring.windows import LATE
from interlock.store.database import Database
from interlock.store.tables import readings as table
from interlock.warehouse.port import Warehouse

MONITOR = "changed-decisions:hour"
ALPHA = 0.01
"""The chance that a release which does what its diff said is ever told of: half of it for all rows, a quarter each for the
directions together and for the slices together."""
MIN_SLICE = 100
OTHERS = "direction:any other"


class Part(msgspec.Struct, frozen=True):
    """Share of changed decisions of all rows, in one direction or in one slice: of the diff, and live."""

    what: str
    predicted: Share
    realised: Share
    verdict: Literal["too small", "as predicted", "more", "less"]

    @property
    def apart(self) -> float:
        """How far the two are apart."""
        return abs(self.realised.share - self.predicted.share)

    @property
    def bound(self) -> float:
        """How far they may be: beyond it the intervals do not touch."""
        low, high = (self.predicted, self.realised)
        low, high = (low, high) if low.share < high.share else (high, low)
        return low.high - low.share + high.share - high.low


class Realised(msgspec.Struct, frozen=True):
    """A release beside its diff. `rows`: live rows of the champion; `pairs`: of these, those that the shadow answered too."""

    release: str
    diff: str
    since: str
    revision: int
    rows: int
    pairs: int
    design_effect: float
    verdict: Literal["too small", "ok", "alert"]
    parts: tuple[Part, ...]
    notes: tuple[str, ...]

    @property
    def worst(self) -> Part:
        """All rows, unless only a direction or a slice is beyond its bound."""
        off = [part for part in self.parts if part.verdict in ("more", "less")]
        first = self.parts[0]
        return first if first in off else max(off, key=lambda part: part.apart / part.bound, default=first)

    @property
    def sentence(self) -> str:
        """The numbers in a line."""
        one = self.worst
        return (
            f"{one.realised.share:.2%} of {one.realised.n:,} live decisions changed ({one.what}), "
            f"the diff said {one.predicted.share:.2%}; the shadow answered {self.pairs:,} of {self.rows:,} rows"
        )


class _Detail(msgspec.Struct):
    """What a reading keeps for the next pass. `closed`: sums of the hours before `open`, from where on it counts again."""

    diff: str
    revision: int
    rows: int
    closed: Counts
    open: str


def measure(
    project: Project, database: Database, warehouse: Warehouse, endpoint: str, now: datetime
) -> Iterator[tuple[Realised, Reading | None, Pairs]]:
    """Hold every release at an endpoint against its diff. The reading, where there are new rows, holds what is counted by now;
    it is not kept yet. The pairs are those of the hours that were read.
    """
    for release in releases(project, database, endpoint, now):
        query = select(table.c.detail).where(
            table.c.endpoint == endpoint, table.c.monitor == MONITOR, table.c.slice == release.name
        )
        with database.read() as connection:
            last = connection.scalar(query.order_by(table.c.window_start.desc()).limit(1))
        old = msgspec.json.decode(last, type=_Detail) if last else None
        if old is None or (old.diff, old.revision) != (release.digest, release.revision):
            since = release.since.replace(minute=0, second=0, microsecond=0) - LATE
            old = _Detail(release.digest, release.revision, 0, {}, iso(since))
        pairs = Pairs(warehouse, release, parse_time(old.open))
        hours = pairs.count()
        begin = max([parse_time(old.open), *(hour - LATE for hour in hours)])
        closed = _sum(old.closed, *(counts for hour, counts in hours.items() if hour < begin))
        found = judge(release, _sum(closed, *(counts for hour, counts in hours.items() if hour >= begin)))
        detail = msgspec.to_builtins(_Detail(found.diff, found.revision, found.rows, closed, iso(begin)))
        detail |= {"method": found.sentence, "worst": msgspec.to_builtins(found.worst)}
        reading = Reading(
            endpoint, MONITOR, found.release, iso(max(hours, default=begin)), "hour", found.worst.apart if found.pairs else None,
            found.worst.bound, found.pairs, found.verdict, detail, release.champion.version, iso(now),
        )  # fmt: skip
        yield found, reading if found.rows > old.rows else None, pairs


def watch_changes(
    project: Project, database: Database, warehouse: Warehouse, endpoint: str, now: datetime
) -> list[Reading]:
    """Keep the readings of a pass, one an hour, and move the alerts: the intervals hold at all looks together, so that two
    passes with new rows take the place of two windows. What is no longer compared has no alert.
    """
    found = [(one.release, reading) for one, reading, _ in measure(project, database, warehouse, endpoint, now)]
    new, compared = [reading for _, reading in found if reading is not None], {release for release, _ in found}
    over = [
        Reading(
            endpoint, MONITOR, row.slice, iso(now), "hour", 0.0, row.threshold, 0, "ok",
            {"method": "both versions are no longer asked the same requests"}, row.version, iso(now),
        )
        for row in alerts.listed(database, endpoint)
        if row.monitor == MONITOR and row.slice not in compared
    ]  # fmt: skip
    with database.write() as connection:
        for reading in new:
            kept.keep(connection, reading)
        for reading in (*new, *over):
            alerts.observe(connection, msgspec.structs.replace(reading, window_start=iso(now)), now)
    return new


def judge(release: Release, counts: Counts) -> Realised:
    """Hold counts against the diff: of its rows those that a model answered on both sides, for only these get two answers."""
    changes, classes, notes = release.diff.changes, release.signature.classes, []
    labels = {str(one).lower() if isinstance(one, bool) else str(one) for one in classes}
    labels = labels or {"value", "higher", "lower"}
    both = [one for one in changes.transitions if {one["before"], one["after"]} <= labels]
    n = sum(one["rows"] for one in both)
    directions = {
        "direction:{before} → {after}".format_map(one): (n, one["rows"]) for one in both if one["changed"]
    } | {OTHERS: (n, 0)}
    slices = {
        "slice:{column} = {value}".format_map(one): (one["n"], one["changed"])
        for one in changes.slices
        if one["n"] >= MIN_SLICE
    }
    if n < changes.rows and slices:
        slices = {}
        notes.append("rules or fixed answers decide some rows of the diff, so its slices cannot be compared")
    if not release.revisions:
        notes.append("nothing to compare: THRESHOLD or the rules have never been those of the diff on both sides")
    rows, pairs, changed = counts.get("all", [0, 0, 0])
    effect = design_effect(pairs, changed, *counts.get("units", [0, 0, 0]))
    seen = {what: (paired, x) for what, (_, paired, x) in counts.items()}
    known = sum(x for what, (_, x) in seen.items() if what in directions)
    seen |= {what: (pairs, seen.get(what, (0, 0))[1]) for what in directions} | {OTHERS: (pairs, changed - known)}
    parts = []
    family = {"all": (n, sum(one["rows"] for one in both if one["changed"]))}
    for tested, alpha, least in ((family, ALPHA / 2, 0), (directions, ALPHA / 4, 0), (slices, ALPHA / 4, MIN_SLICE)):
        for what, (m, x) in tested.items():
            paired, moved = seen.get(what, (0, 0))
            first = predicted(x, m, effect, alpha / len(tested))
            now = watched(moved, paired, effect, alpha / len(tested))
            if what != OTHERS or moved:
                parts.append(_part(what, first, now, small=pairs < MIN_ROWS or now.n < least))
    off = any(part.verdict in ("more", "less") for part in parts)
    return Realised(
        release.name, release.digest, iso(release.since), release.revision, rows, pairs, effect,
        "too small" if pairs < MIN_ROWS else "alert" if off else "ok", tuple(parts), tuple(notes),
    )  # fmt: skip


def _part(what: str, first: Share, now: Share, *, small: bool) -> Part:
    if small or (first.low <= now.high and now.low <= first.high):
        return Part(what, first, now, "too small" if small else "as predicted")
    return Part(what, first, now, "more" if now.share > first.share else "less")


def _sum(*parts: Mapping[str, list[int]]) -> Counts:
    total: Counts = {}
    for part in parts:
        for what, numbers in part.items():
            total[what] = [a + b for a, b in zip(total.get(what, (0, 0, 0)), numbers, strict=True)]
    return total
