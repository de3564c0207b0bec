"""Schedules: the next tick in any zone, one run for every tick, for missed ones what the schedule says."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import given
from hypothesis import strategies as st

from interlock.core.clock import FixedClock, iso, parse_time
from interlock.core.errors import Conflict, NotFound, Usage
from interlock.jobs.port import RunSpec
from interlock.jobs.records import Runs
from interlock.jobs.schedules import MOST, Schedules, due_ticks, next_tick
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
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", "2026-10-26T01:30:00Z"),  # seen from within: not back
        ("30 2 * * *", "Europe/Berlin", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"),
        ("30 * * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"),  # hourly: both hours count
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
    assert due_ticks(cron, zone, after, first, 1) == [first]
    assert due_ticks(cron, zone, after, first - timedelta(microseconds=1), 1) == []


def field(low: int, high: int) -> st.SearchStrategy[str]:
    one = st.integers(low, high)
    span = (
        st.tuples(st.integers(low, high - 1), one)
        .filter(lambda two: two[0] < two[1])
        .map(lambda two: f"{two[0]}-{two[1]}")
    )
    step = st.integers(1, high).map(lambda n: f"*/{n}")
    return st.one_of(st.just("*"), one.map(str), span, step, st.lists(one, min_size=2, max_size=3).map(joined))


def joined(values: list[int]) -> str:
    return ",".join(map(str, values))


EXPRESSIONS = st.tuples(field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 6)).map(" ".join)
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))


@given(EXPRESSIONS, MOMENTS)
def test_ticks_are_those_of_another_cron_library(cron: str, after: datetime) -> None:
    other = croniter(cron, after, implement_cron_bug=True)
    tick = after
    for _ in range(3):
        tick = next_tick(cron, "UTC", tick)
        assert tick == other.get_next(datetime)


@given(
    st.integers(0, 59).map(lambda minute: f"{minute} * * * *"),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Sydney", "Asia/Kathmandu"]),
    st.sampled_from(["2026-03-08", "2026-03-29", "2026-04-05", "2026-10-04", "2026-10-25", "2026-11-01"]),
)
def test_an_hourly_schedule_ticks_at_every_such_minute_of_days_on_which_clocks_change(
    cron: str, zone: str, day: str
) -> None:
    start = parse_time(f"{day}T00:00:00Z") - timedelta(hours=14)
    minutes = [start + timedelta(minutes=n) for n in range(1, 52 * 60)]
    expected = [one for one in minutes if one.astimezone(ZoneInfo(zone)).minute == int(cron.split()[0])]
    assert due_ticks(cron, zone, start, minutes[-1], 1000) == expected


@given(
    MOMENTS,
    st.timedeltas(timedelta(0), timedelta(days=40)),
    st.sampled_from(["30 2 * * *", "0 */5 * * *", "0 3 * * 1", "15,45 1-3 * * *"]),
    st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe"]),
    st.integers(1, 30),
)
def test_looking_back_finds_the_last_of_all_ticks(
    after: datetime, absence: timedelta, cron: str, zone: str, most: int
) -> None:
    ticks, tick = [], next_tick(cron, zone, after)
    while tick <= after + absence:
        ticks.append(tick)
        tick = next_tick(cron, zone, tick)
    assert due_ticks(cron, zone, after, after + absence, most) == ticks[-most:]


def test_a_tick_makes_a_run_of_the_schedules_spec(schedules: Schedules, runs: Runs) -> None:
    schedules.add("nightly", "*/10 * * * * *", "UTC", SPEC, "ann")
    assert schedules.fire(second(9.9)) == []
    [run_id] = schedules.fire(second(10.1))
    run = runs.get(run_id)
    assert (run.spec, run.author, run.schedule, run.state) == (SPEC, "ann", "nightly", "queued")


def test_two_workers_that_see_a_tick_make_one_run(database: Database, schedules: Schedules, runs: Runs) -> None:
    schedules.add("nightly", "*/10 * * * * *", "UTC", SPEC, "ann")
    start, made = threading.Barrier(4), []

    def worker() -> None:
        mine = Schedules(database, FixedClock(second(10)))
        start.wait()
        made.extend(mine.fire(second(11)))

    workers = [threading.Thread(target=worker) for _ in range(4)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    assert len(made) == 1
    runs.cancel(made[0])
    assert schedules.fire(second(11)) == [], "the tick is used up, whatever became of its run"


def histories(schedules: Schedules, name: str) -> list[tuple[str, str]]:
    return [(one.tick_at, one.state) for one in schedules.history(name, 100)]


DAY = timedelta(days=1)


def test_catch_up_last_makes_one_run_of_all_missed_ticks(schedules: Schedules) -> None:
    schedules.add("hourly", "0 * * * *", "UTC", SPEC, "ann")
    [run_id] = schedules.fire(NOON + 3 * DAY + timedelta(minutes=20))
    assert histories(schedules, "hourly") == [(iso(NOON + 3 * DAY), "made")]
    assert schedules.history("hourly", 1)[0].run_id == run_id
    assert schedules.fire(NOON + 3 * DAY + timedelta(minutes=21)) == []


def test_catch_up_none_drops_what_is_a_minute_late_and_says_so(schedules: Schedules) -> None:
    schedules.add("hourly", "0 * * * *", "UTC", SPEC, "ann", catch_up="none")
    assert schedules.fire(second(3600 + 61)) == []
    assert histories(schedules, "hourly") == [(iso(second(3600)), "missed")]
    assert len(schedules.fire(second(7200 + 59))) == 1
    assert histories(schedules, "hourly")[0] == (iso(second(7200)), "made")


def test_catch_up_all_makes_every_missed_run_up_to_a_limit(schedules: Schedules, runs: Runs) -> None:
    schedules.add("hourly", "0 * * * *", "UTC", SPEC, "ann", catch_up="all")
    made = schedules.fire(NOON + timedelta(hours=3, minutes=1))
    assert [at for at, _ in histories(schedules, "hourly")] == [iso(second(3600 * n)) for n in (3, 2, 1)]
    assert runs.open() == made
    more = schedules.fire(NOON + 3 * DAY)
    assert len(made) + len(more) == MOST
    assert [state for _, state in histories(schedules, "hourly")] == ["skipped"] * 3 + ["made"] * MOST
    assert schedules.history("hourly", 1)[0].run_id == made[0], "for that run it is skipped"


def test_no_run_is_made_while_an_earlier_one_is_open_and_the_history_says_so(schedules: Schedules, runs: Runs) -> None:
    schedules.add("often", "*/10 * * * * *", "UTC", SPEC, "ann", priority=3)
    [run_id] = schedules.fire(second(10))
    assert runs.get(run_id).priority == 3
    assert schedules.fire(second(20)) == []
    assert [(one.state, one.run_id) for one in schedules.history("often", 10)] == [
        ("skipped", run_id),
        ("made", run_id),
    ]
    runs.cancel(run_id)
    assert schedules.fire(second(21)) == [], "what is skipped is not made up for"
    assert len(schedules.fire(second(30))) == 1


def test_no_run_is_made_while_as_many_wait_as_may(database: Database, clock: FixedClock, runs: Runs) -> None:
    full = Schedules(database, clock, waiting=2)
    full.add("often", "*/10 * * * * *", "UTC", SPEC, "ann")
    others = [runs.create(SPEC, "bob") for _ in range(2)]
    assert full.fire(second(10)) == []
    assert [(one.state, one.run_id) for one in full.history("often", 10)] == [("skipped", None)]
    runs.cancel(others[0])
    assert len(full.fire(second(20))) == 1


def test_nothing_from_before_its_time_or_of_its_pause_is_fired(schedules: Schedules, clock: FixedClock) -> None:
    clock.at = second(15)
    schedules.add("often", "*/10 * * * * *", "UTC", SPEC, "ann", catch_up="all")
    assert schedules.fire(second(16)) == []
    schedules.pause("often")
    assert schedules.fire(second(40)) == []
    clock.at = second(45)
    schedules.resume("often")
    assert schedules.fire(second(46)) == []
    assert len(schedules.fire(second(50))) == 1
    clock.at = second(12)
    schedules.resume("often")
    assert schedules.fire(second(50)) == [], "a clock that was set back makes no tick come twice"


def test_pause_resume_remove(schedules: Schedules) -> None:
    assert schedules.add("often", "*/10 * * * * *", "UTC", SPEC, "ann").next_tick == iso(second(10))
    assert schedules.pause("often").next_tick is None
    assert schedules.fire(second(10)) == []
    assert schedules.resume("often").state == "active"
    assert [schedule.name for schedule in schedules.all()] == ["often"]
    with pytest.raises(Conflict, match="often already"):
        schedules.add("often", "0 3 * * *", "UTC", SPEC, "ann")
    schedules.remove("often")
    assert schedules.all() == []
    for act in (schedules.pause, schedules.resume, schedules.remove):
        with pytest.raises(NotFound, match="no schedule often"):
            act("often")
