"""Schedules: the next tick in any zone, one run for every tick, none for a missed one."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.core.clock import FixedClock, iso, parse_time
from interlock.core.errors import Conflict, NotFound, Usage
from interlock.jobs.port import RunSpec
from interlock.jobs.records import Runs
from interlock.jobs.schedules import Schedules, due_tick, next_tick
from interlock.store.database import Database

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SPEC = RunSpec(model="flight-delay", parameters={"depth": 3})


def second(n: float) -> datetime:
    return NOON + timedelta(seconds=n)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with contextlib.closing(Database(tmp_path / "control.db", create=True)) as made:
        yield made


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOON)


@pytest.fixture
def schedules(database: Database, clock: FixedClock) -> Schedules:
    return Schedules(database, clock)


@pytest.fixture
def runs(database: Database) -> Runs:
    return Runs(database)


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        ("0 3 * * *", "UTC", "2026-03-01T12:00:00Z", "2026-03-02T03:00:00Z"),
        ("*/20 * * * * *", "UTC", "2026-03-01T12:00:05.5Z", "2026-03-01T12:00:20Z"),
        ("*/20 * * * * *", "UTC", "2026-03-01T12:00:20Z", "2026-03-01T12:00:40Z"),
        ("0 3 * * *", "America/New_York", "2026-01-01T12:00:00Z", "2026-01-02T08:00:00Z"),
        ("0 3 * * *", "America/New_York", "2026-07-01T12:00:00Z", "2026-07-02T07:00:00Z"),
        ("0 0 1 * *", "Europe/Berlin", "2026-01-31T22:59:59Z", "2026-01-31T23:00:00Z"),
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"),  # 2:30 does not exist: at 3:00
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"),  # 2:30 comes twice: the first
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"),  # and not again
    ],
)
def test_the_next_tick(cron: str, zone: str, after: str, expected: str) -> None:
    assert next_tick(cron, zone, parse_time(after)) == parse_time(expected)


@pytest.mark.parametrize("cron", ["", "often", "61 * * * *", "* * * *", "0 0 30 2 *", "* * * * * * *"])
def test_what_is_no_cron_expression_is_refused(cron: str) -> None:
    with pytest.raises(Usage, match="no cron expression") as caught:
        next_tick(cron, "UTC", NOON)
    assert caught.value.next


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../etc/passwd"])
def test_what_is_no_zone_is_refused(zone: str) -> None:
    with pytest.raises(Usage, match="no time zone"):
        next_tick("* * * * *", zone, NOON)


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),
    st.sampled_from(["*/7 * * * * *", "0 */5 * * * *", "30 2 * * *", "*/15 * * * *"]),
    st.sampled_from(["UTC", "America/New_York", "Australia/Lord_Howe", "Europe/Berlin"]),
)
def test_ticks_only_go_forward_and_none_is_stepped_over(moment: datetime, cron: str, zone: str) -> None:
    after = moment.replace(tzinfo=UTC)
    first = next_tick(cron, zone, after)
    assert first > after
    assert next_tick(cron, zone, first - timedelta(microseconds=1)) == first
    assert next_tick(cron, zone, after + (first - after) / 2) == first
    assert due_tick(cron, zone, after, first) == first
    assert due_tick(cron, zone, after, first - timedelta(microseconds=1)) is None


def test_a_tick_makes_a_run_of_the_schedules_spec(schedules: Schedules, runs: Runs) -> None:
    schedules.add("nightly", "*/10 * * * * *", "UTC", SPEC, "ann")
    assert schedules.fire(NOON, second(9.9)) == []
    [run_id] = schedules.fire(second(9.9), second(10.1))
    run = runs.get(run_id)
    assert (run.spec, run.author, run.schedule, run.state) == (SPEC, "ann", "nightly", "queued")


def test_two_workers_that_see_a_tick_make_one_run(database: Database, schedules: Schedules, runs: Runs) -> None:
    schedules.add("nightly", "*/10 * * * * *", "UTC", SPEC, "ann")
    start, made = threading.Barrier(4), []

    def worker() -> None:
        mine = Schedules(database, FixedClock(second(10)))
        start.wait()
        made.extend(mine.fire(second(9), second(11)))

    workers = [threading.Thread(target=worker) for _ in range(4)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    assert len(made) == 1
    runs.cancel(made[0])
    assert schedules.fire(second(9), second(11)) == [], "the tick is used up, whatever became of its run"


def test_missed_ticks_are_skipped(schedules: Schedules) -> None:
    schedules.add("often", "*/10 * * * * *", "UTC", SPEC, "ann")
    assert len(schedules.fire(NOON, second(35))) == 1, "of three ticks only the last counts"
    schedules.add("hourly", "0 * * * *", "UTC", SPEC, "ann")
    schedules.remove("often")
    assert schedules.fire(NOON, second(3600 + 61)) == [], "a minute late is too late"
    assert len(schedules.fire(NOON, second(3600 + 59))) == 1


def test_no_run_is_made_while_an_earlier_one_is_open(schedules: Schedules, runs: Runs) -> None:
    schedules.add("often", "*/10 * * * * *", "UTC", SPEC, "ann")
    [run_id] = schedules.fire(NOON, second(10))
    assert schedules.fire(second(10), second(20)) == []
    runs.cancel(run_id)
    assert len(schedules.fire(second(20), second(30))) == 1


def test_nothing_from_before_its_time_is_fired(schedules: Schedules, clock: FixedClock) -> None:
    clock.at = second(15)
    schedules.add("often", "*/10 * * * * *", "UTC", SPEC, "ann")
    assert schedules.fire(NOON, second(16)) == []
    assert len(schedules.fire(NOON, second(20))) == 1


def test_pause_resume_remove(schedules: Schedules) -> None:
    assert schedules.add("often", "*/10 * * * * *", "UTC", SPEC, "ann").next_tick == iso(second(10))
    assert schedules.pause("often").next_tick is None
    assert schedules.fire(NOON, second(10)) == []
    assert schedules.resume("often").state == "active"
    assert [schedule.name for schedule in schedules.all()] == ["often"]
    with pytest.raises(Conflict, match="often already"):
        schedules.add("often", "0 3 * * *", "UTC", SPEC, "ann")
    schedules.remove("often")
    assert schedules.all() == []
    for act in (schedules.pause, schedules.resume, schedules.remove):
        with pytest.raises(NotFound, match="no schedule often"):
            act("often")
