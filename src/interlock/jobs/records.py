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
AttemptState = Literal["running", "succeeded", "failed", "cancelled", "interrupted", "superseded"]
"""`interrupted`: the worker left or was killed. It is nobody's failure and counts against no limit.
`superseded`: it succeeded, and somebody wanted its step done again."""
Channel = Literal["webhook", "mail"]
CHANNELS: tuple[Channel, ...] = ("webhook", "mail")

MOVES: dict[RunState, frozenset[RunState]] = {
    "queued": frozenset({"running", "cancelled"}),
    "running": frozenset({"succeeded", "failed", "cancelled"}),
    "succeeded": frozenset(),
    "failed": frozenset({"queued"}),
    "cancelled": frozenset({"queued"}),
}
"""From which state a run may go to which."""
OPEN: tuple[RunState, ...] = ("queued", "running")
_OPEN_RUNS = (
    select(runs.c.id)
    .where(runs.c.state.in_(OPEN))
    .order_by(runs.c.state == "queued", runs.c.priority.desc(), runs.c.created_at, runs.c.id)
)
"""Built once: a worker asks it five times a second."""


class Run(msgspec.Struct, frozen=True):
    """One run. Times are ISO 8601 in UTC; `error` is that of the step which failed it.

    Of waiting runs that of the highest `priority` is next. `origin`: the run whose first steps this one took over.
    """

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
    priority: int
    origin: str | None

    @property
    def ended(self) -> bool:
        """Whether it will not go on by itself."""
        return self.state not in OPEN


class Attempt(msgspec.Struct, frozen=True):
    """One attempt of one step. `log` is a path relative to the project; `peak_mb` the most memory it had resident."""

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
    peak_mb: float | None


class Runs:
    """Reads and writes the records. Every change of state goes through `MOVES`, in one transaction."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()

    def create(self, spec: RunSpec, author: str, *, priority: int = 0, waiting: int | None = None) -> str:
        """A new run, queued; its id.

        Raises:
            Conflict: `waiting` runs are open already.
        """
        with self._database.write() as connection:
            there = count_open(connection)
            if waiting is not None and there >= waiting:
                raise Conflict(
                    f"{there} runs are open already, and [jobs] waiting allows {waiting}",
                    next="call one off: interlock jobs list; interlock jobs cancel RUN",
                )
            return create_run(connection, spec, author, self._now(), priority=priority)

    def fork(self, run: Run, author: str, run_id: str, before: int) -> None:
        """A new queued run of that id like `run`, whose steps at positions under `before` count as done."""
        with self._database.write() as connection:
            create_run(connection, run.spec, author, self._now(), priority=run.priority, origin=run.id, run_id=run_id)
            kept = select(runs.c.validation).where(runs.c.id == run.id).scalar_subquery()
            connection.execute(update(runs).where(runs.c.id == run_id).values(validation=kept))
            query = select(steps).where(
                steps.c.run_id == run.id, steps.c.position < before, steps.c.state == "succeeded"
            )
            for row in connection.execute(query).all():
                connection.execute(insert(steps).values({**row._mapping, "run_id": run_id}))

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
        """The ids of open runs: those that are being carried, then the waiting ones by priority and submission."""
        with self._database.read() as connection:
            return list(connection.scalars(_OPEN_RUNS))

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

    def retry(self, run_id: str, position: int | None = None) -> None:
        """Queue a failed or cancelled run again; its finished steps, those before `position`, stay finished.

        Raises:
            Conflict: it has not ended, or succeeded.
        """
        with self._database.write() as connection:
            self._move(connection, run_id, "queued", ended_at=None, error=None, untold=None)
            if position is not None:
                connection.execute(
                    update(steps)
                    .where(steps.c.run_id == run_id, steps.c.position >= position, steps.c.state == "succeeded")
                    .values(state="superseded")
                )

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
            untold = " ".join(CHANNELS) if state == "failed" else None
            self._move(connection, run_id, state, ended_at=self._now(), error=_encode(error), untold=untold)
            return True

    def untold(self) -> list[tuple[Run, list[Channel]]]:
        """Failed runs, and the channels that have not taken the news."""
        query = select(runs).where(runs.c.untold.is_not(None)).order_by(runs.c.ended_at)
        with self._database.read() as connection:
            found = connection.execute(query).all()
        return [(_run(row), [one for one in CHANNELS if one in row.untold.split()]) for row in found]

    def told(self, run: Run, left: list[Channel]) -> None:
        """Note which channels are still to hear of this failure; a run that was queued again meanwhile is no news."""
        with self._database.write() as connection:
            same = (runs.c.id == run.id) & (runs.c.ended_at == run.ended_at)
            connection.execute(update(runs).where(same).values(untold=" ".join(left) or None))

    def validation(self, run_id: str) -> dict[str, Any] | None:
        """What the validation of the run's data found, if it came so far."""
        with self._database.read() as connection:
            text = _row(connection, run_id).validation
        return None if text is None else dict(msgspec.json.decode(text))

    def ended_before(self, moment: str) -> list[str]:
        """The ids of runs that ended before an ISO time."""
        with self._database.read() as connection:
            return list(connection.scalars(select(runs.c.id).where(runs.c.ended_at < moment)))

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

    def end_attempt(
        self, attempt: Attempt, state: AttemptState, error: StepError | None, peak_mb: float | None = None
    ) -> None:
        """Say how the attempt went."""
        with self._database.write() as connection:
            query = update(steps).where(*_key(attempt.run_id, attempt.name, attempt.attempt))
            values = {"state": state, "ended_at": self._now(), "error": _encode(error), "peak_mb": peak_mb}
            connection.execute(query.values(values))

    def _move(self, connection: Connection, run_id: str, to: RunState, **values: Any) -> None:
        state: RunState = _row(connection, run_id).state
        if to not in MOVES[state]:
            raise Conflict(f"run {run_id} is {state} and cannot become {to}", next=f"see: interlock jobs show {run_id}")
        connection.execute(update(runs).where(runs.c.id == run_id).values(state=to, **values))

    def _now(self) -> str:
        return iso(self._clock.now())


def count_open(connection: Connection) -> int:
    """How many runs are queued or running."""
    return connection.scalar(select(func.count()).where(runs.c.state.in_(OPEN))) or 0


def create_run(
    connection: Connection, spec: RunSpec, author: str, now: str, *,
    priority: int = 0, schedule: str | None = None, origin: str | None = None, run_id: str = "",
) -> str:  # fmt: skip
    """Insert a queued run in the caller's transaction; its id."""
    values = {"id": run_id or uuid7_text(), "model": spec.model, "spec": msgspec.json.encode(spec).decode()}
    values |= {"state": "queued", "author": author, "created_at": now}
    connection.execute(insert(runs).values(**values, priority=priority, schedule=schedule, origin=origin))
    return values["id"]


def _row(connection: Connection, run_id: str) -> Row[Any]:
    row = connection.execute(select(runs).where(runs.c.id == run_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no run {run_id}", next="list them: interlock jobs list")
    return row


def _key(run_id: str, name: str, attempt: int) -> tuple[Any, Any, Any]:
    return steps.c.run_id == run_id, steps.c.name == name, steps.c.attempt == attempt


def _run(row: Row[Any]) -> Run:
    columns = {name: row._mapping[name] for name in Run.__struct_fields__}
    return Run(**{**columns, "spec": msgspec.json.decode(row.spec, type=RunSpec), "error": _decode(row.error)})


def _attempt(row: Row[Any]) -> Attempt:
    return Attempt(**{**row._mapping, "error": _decode(row.error)})


def _encode(error: StepError | None) -> str | None:
    return None if error is None else msgspec.json.encode(error).decode()


def _decode(text: str | None) -> StepError | None:
    return None if text is None else msgspec.json.decode(text, type=StepError)
