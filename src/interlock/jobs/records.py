"""Runs and the attempts of their steps in the control database: the truth about what is done and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, Row, func, insert, select, update

from interlock.core.clock import Clock, SystemClock, iso
from interlock.core.errors import Conflict, NotFound
from interlock.core.ids import uuid7_text
from interlock.jobs.port import RunSpec, StepError
from interlock.store.database import Database
from interlock.store.tables import runs, steps

RunState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
AttemptState = Literal["running", "succeeded", "failed", "cancelled", "interrupted"]
"""`interrupted`: the worker left or was killed. It is nobody's failure and counts against no limit."""

MOVES: dict[RunState, frozenset[RunState]] = {
    "queued": frozenset({"running", "cancelled"}),
    "running": frozenset({"succeeded", "failed", "cancelled"}),
    "succeeded": frozenset(),
    "failed": frozenset({"queued"}),
    "cancelled": frozenset({"queued"}),
}
"""From which state a run may go to which."""
OPEN: tuple[RunState, ...] = ("queued", "running")


class Run(msgspec.Struct, frozen=True):
    """One run. Times are ISO 8601 in UTC; `error` is that of the step which failed it."""

    id: str
    model: str
    spec: RunSpec
    state: RunState
    author: str
    schedule: str | None
    created_at: str
    started_at: str | None
    ended_at: str | None
    error: StepError | None
    version: int | None

    @property
    def ended(self) -> bool:
        """Whether it will not go on by itself."""
        return self.state not in OPEN


class Attempt(msgspec.Struct, frozen=True):
    """One attempt of one step. `log` is a path relative to the project."""

    run_id: str
    position: int
    name: str
    attempt: int
    state: AttemptState
    started_at: str
    ended_at: str | None
    pid: int | None
    error: StepError | None
    log: str


class Runs:
    """Reads and writes the records. Every change of state goes through `MOVES`, in one transaction."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()

    def create(self, spec: RunSpec, author: str) -> str:
        """A new run, queued; its id."""
        with self._database.write() as connection:
            return create_run(connection, spec, author, None, self._now())

    def get(self, run_id: str) -> Run:
        """The run.

        Raises:
            NotFound: there is none of that id.
        """
        with self._database.read() as connection:
            return _run(_row(connection, run_id))

    def newest(self, limit: int) -> list[Run]:
        """The `limit` newest runs, the newest first."""
        query = select(runs).order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(limit)
        with self._database.read() as connection:
            return [_run(row) for row in connection.execute(query)]

    def open(self) -> list[str]:
        """The ids of runs that are queued or running, in the order in which they were submitted."""
        query = select(runs.c.id).where(runs.c.state.in_(OPEN)).order_by(runs.c.created_at, runs.c.id)
        with self._database.read() as connection:
            return list(connection.scalars(query))

    def attempts(self, run_id: str) -> list[Attempt]:
        """Every attempt of the run's steps, in order."""
        query = select(steps).where(steps.c.run_id == run_id).order_by(steps.c.position, steps.c.attempt)
        with self._database.read() as connection:
            return [_attempt(row) for row in connection.execute(query)]

    def cancel(self, run_id: str) -> None:
        """Call the run off; whoever carries it sees that and kills its step.

        Raises:
            Conflict: it has ended already.
        """
        with self._database.write() as connection:
            self._move(connection, run_id, "cancelled", ended_at=self._now())

    def retry(self, run_id: str) -> None:
        """Queue a failed or cancelled run again; its finished steps stay finished.

        Raises:
            Conflict: it has not ended, or succeeded.
        """
        with self._database.write() as connection:
            self._move(connection, run_id, "queued", ended_at=None, error=None)

    def begin(self, run_id: str) -> bool:
        """Whoever is given the run calls this first: False means that there is nothing to do any more.

        An attempt that is still marked as running belonged to a worker that is gone.
        """
        with self._database.write() as connection:
            connection.execute(
                update(steps)
                .where(steps.c.run_id == run_id, steps.c.state == "running")
                .values(state="interrupted", ended_at=self._now())
            )
            row = _row(connection, run_id)
            if row.state == "queued":
                self._move(connection, run_id, "running", started_at=row.started_at or self._now())
            return row.state in OPEN

    def end(self, run_id: str, state: Literal["succeeded", "failed"], error: StepError | None = None) -> bool:
        """End a run that is being carried; False if it was called off meanwhile."""
        with self._database.write() as connection:
            if _row(connection, run_id).state != "running":
                return False
            self._move(connection, run_id, state, ended_at=self._now(), error=_encode(error))
            return True

    def is_running(self, run_id: str) -> bool:
        """Whether the run is to go on."""
        with self._database.read() as connection:
            return connection.scalar(select(runs.c.state).where(runs.c.id == run_id)) == "running"

    def begin_attempt(self, run_id: str, position: int, name: str) -> Attempt | None:
        """A new attempt at a step, or None if the run was called off."""
        with self._database.write() as connection:
            if _row(connection, run_id).state != "running":
                return None
            query = select(func.max(steps.c.attempt)).where(steps.c.run_id == run_id, steps.c.name == name)
            number = (connection.scalar(query) or 0) + 1
            log = Path(".interlock", "logs", "runs", run_id, f"{name}-{number}.log")
            values = {"run_id": run_id, "position": position, "name": name, "attempt": number, "log": str(log)}
            connection.execute(insert(steps).values(state="running", started_at=self._now(), **values))
            return _attempt(connection.execute(select(steps).where(*_key(run_id, name, number))).one())

    def set_pid(self, attempt: Attempt, pid: int) -> None:
        """Note the process that works on the attempt."""
        with self._database.write() as connection:
            query = update(steps).where(*_key(attempt.run_id, attempt.name, attempt.attempt))
            connection.execute(query.values(pid=pid))

    def end_attempt(self, attempt: Attempt, state: AttemptState, error: StepError | None) -> None:
        """Say how the attempt went."""
        with self._database.write() as connection:
            query = update(steps).where(*_key(attempt.run_id, attempt.name, attempt.attempt))
            connection.execute(query.values(state=state, ended_at=self._now(), error=_encode(error)))

    def _move(self, connection: Connection, run_id: str, to: RunState, **values: Any) -> None:
        state: RunState = _row(connection, run_id).state
        if to not in MOVES[state]:
            raise Conflict(f"run {run_id} is {state} and cannot become {to}", next=f"see: interlock jobs show {run_id}")
        connection.execute(update(runs).where(runs.c.id == run_id).values(state=to, **values))

    def _now(self) -> str:
        return iso(self._clock.now())


def create_run(connection: Connection, spec: RunSpec, author: str, schedule: str | None, now: str) -> str:
    """Insert a queued run in the caller's transaction; its id."""
    run_id = uuid7_text()
    text = msgspec.json.encode(spec).decode()
    connection.execute(
        insert(runs).values(
            id=run_id, model=spec.model, spec=text, state="queued", author=author, schedule=schedule, created_at=now
        )
    )
    return run_id


def _row(connection: Connection, run_id: str) -> Row[Any]:
    row = connection.execute(select(runs).where(runs.c.id == run_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no run {run_id}", next="list them: interlock jobs list")
    return row


def _key(run_id: str, name: str, attempt: int) -> tuple[Any, Any, Any]:
    return steps.c.run_id == run_id, steps.c.name == name, steps.c.attempt == attempt


def _run(row: Row[Any]) -> Run:
    spec = msgspec.json.decode(row.spec, type=RunSpec)
    return Run(**{**row._mapping, "spec": spec, "error": _decode(row.error)})


def _attempt(row: Row[Any]) -> Attempt:
    return Attempt(**{**row._mapping, "error": _decode(row.error)})


def _encode(error: StepError | None) -> str | None:
    return None if error is None else msgspec.json.encode(error).decode()


def _decode(text: str | None) -> StepError | None:
    return None if text is None else msgspec.json.decode(text, type=StepError)
