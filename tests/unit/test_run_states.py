"""Runs and attempts in the control database: only the moves of the state table happen, and they leave a true record."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.core.clock import FixedClock, iso
from interlock.core.errors import Conflict
from interlock.jobs.port import RunSpec, StepError
from interlock.jobs.records import MOVES, Runs, RunState
from interlock.store.database import Database

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SPEC = RunSpec(
    model="flight-delay", extract="log", parameters={"learning_rate": 0.1}, variables={"until": "2013-06-01"}
)
BROKEN = StepError("recipe_failed", "your recipe raised", "mend it")


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOON)


@pytest.fixture
def runs(tmp_path: Path, clock: FixedClock) -> Iterator[Runs]:
    with contextlib.closing(Database(tmp_path / "control.db", create=True)) as database:
        yield Runs(database, clock)


def test_every_state_has_its_moves() -> None:
    assert set(MOVES) == set(get_args(RunState))
    assert {to for moves in MOVES.values() for to in moves} == set(get_args(RunState))


def test_a_run_keeps_what_it_was_submitted_with(runs: Runs) -> None:
    run = runs.get(runs.create(SPEC, "ann"))
    assert (run.model, run.spec, run.state, run.author) == ("flight-delay", SPEC, "queued", "ann")
    assert run.created_at == iso(NOON)
    assert not run.ended


def test_times_tell_when_it_began_and_ended(runs: Runs, clock: FixedClock) -> None:
    run_id = runs.create(SPEC, "ann")
    clock.at += timedelta(seconds=1)
    assert runs.begin(run_id)
    clock.at += timedelta(seconds=1)
    assert runs.begin(run_id), "whoever is given a running run carries it on"
    assert runs.end(run_id, "failed", BROKEN)
    run = runs.get(run_id)
    assert (run.state, run.error, run.ended) == ("failed", BROKEN, True)
    assert (run.started_at, run.ended_at) == (iso(NOON + timedelta(seconds=1)), iso(NOON + timedelta(seconds=2)))
    runs.retry(run_id)
    again = runs.get(run_id)
    assert (again.state, again.error, again.ended_at, again.started_at) == ("queued", None, None, run.started_at)


def test_open_runs_are_the_one_that_is_carried_and_then_the_waiting_ones_in_their_order(runs: Runs) -> None:
    ids = [runs.create(SPEC, "ann") for _ in range(5)]
    runs.cancel(ids[1])
    assert runs.begin(ids[2])
    assert runs.open() == [ids[2], ids[0], ids[3], ids[4]]
    urgent = runs.create(SPEC, "ann", priority=1)
    assert runs.open() == [ids[2], urgent, ids[0], ids[3], ids[4]]
    runs.cancel(urgent)
    assert [run.id for run in runs.newest(3)] == [urgent, ids[4], ids[3]]


def test_attempts_are_numbered_and_have_their_own_logs(runs: Runs) -> None:
    run_id = runs.create(SPEC, "ann")
    runs.begin(run_id)
    for number in (1, 2):
        attempt = runs.begin_attempt(run_id, 1, "train")
        assert attempt is not None
        assert (attempt.attempt, attempt.log) == (number, f".interlock/logs/runs/{run_id}/train-{number}.log")
        runs.set_pid(attempt, 4711)
        runs.end_attempt(attempt, "failed", BROKEN)
    assert [(one.state, one.pid, one.error) for one in runs.attempts(run_id)] == [("failed", 4711, BROKEN)] * 2


def test_an_attempt_of_a_dead_worker_is_marked_when_the_run_is_taken_over(runs: Runs, clock: FixedClock) -> None:
    run_id = runs.create(SPEC, "ann")
    runs.begin(run_id)
    runs.begin_attempt(run_id, 1, "train")
    clock.at += timedelta(seconds=5)
    assert runs.begin(run_id)
    assert [(one.state, one.ended_at) for one in runs.attempts(run_id)] == [("interrupted", iso(clock.at))]


def test_a_run_that_was_called_off_gets_no_attempt_and_no_other_end(runs: Runs) -> None:
    run_id = runs.create(SPEC, "ann")
    runs.begin(run_id)
    runs.cancel(run_id)
    assert runs.begin_attempt(run_id, 1, "train") is None
    assert not runs.end(run_id, "succeeded")
    assert not runs.begin(run_id)
    assert runs.get(run_id).state == "cancelled"


def act(runs: Runs, run_id: str, to: RunState) -> None:
    """Try to bring the run into a state by the call that is there for it."""
    match to:
        case "queued":
            runs.retry(run_id)
        case "running":
            runs.begin(run_id)
        case "cancelled":
            runs.cancel(run_id)
        case "succeeded" | "failed":
            runs.end(run_id, to)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    with contextlib.closing(Database(tmp_path_factory.mktemp("shared") / "control.db", create=True)) as database:
        yield Runs(database)


@settings(max_examples=30)
@given(wanted=st.lists(st.sampled_from(sorted(MOVES)), max_size=12))
def test_whatever_is_called_only_the_moves_of_the_table_happen(shared: Runs, wanted: list[RunState]) -> None:
    run_id = shared.create(SPEC, "ann")
    state: RunState = "queued"
    for to in wanted:
        with contextlib.suppress(Conflict):
            act(shared, run_id, to)
        state = to if to in MOVES[state] else state
        assert shared.get(run_id).state == state
        assert shared.is_running(run_id) == (state == "running")
        assert (run_id in shared.open()) == (state in ("queued", "running"))


@pytest.mark.parametrize("call", [Runs.cancel, Runs.retry])
def test_a_person_is_told_what_cannot_be_done(runs: Runs, call: Callable[[Runs, str], None]) -> None:
    run_id = runs.create(SPEC, "ann")
    runs.begin(run_id)
    runs.end(run_id, "succeeded")
    with pytest.raises(Conflict, match="is succeeded and cannot become") as caught:
        call(runs, run_id)
    assert caught.value.next.endswith(run_id)
