"""What people do with runs, from any process; nothing here needs a worker, or knows the engine."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from interlock.core.clock import Clock
from interlock.core.errors import Conflict, NotFound, NotRunning
from interlock.core.ids import uuid7_text
from interlock.core.project import Project
from interlock.jobs.port import RunSpec
from interlock.jobs.records import Attempt, Run, Runs
from interlock.jobs.worker import worker_lives
from interlock.store.database import Database

LOOK_SECONDS = 0.2
PATIENCE_SECONDS = 15.0
"""For so long `wait` looks for a living worker before it gives up: one that was just started needs a second or two."""


class RunDetails(Run, frozen=True):
    """A run with every attempt of its steps, in order, and what the validation of its data found."""

    attempts: tuple[Attempt, ...] = ()
    validation: dict[str, Any] | None = None


class Jobs:
    """The runs of a project."""

    def __init__(self, project: Project, database: Database, clock: Clock | None = None) -> None:
        self._project = project
        self._runs = Runs(database, clock)

    def submit(self, spec: RunSpec, author: str, priority: int = 0) -> str:
        """Queue a run; its id, at once. Runs are carried one at a time, by priority, then in the order of submission.

        Raises:
            Conflict: as many are open as `[jobs] waiting` allows.
        """
        waiting = self._project.settings().jobs.waiting
        return self._runs.create(spec, author, priority=priority, waiting=waiting)

    def list(self, limit: int = 100) -> list[Run]:
        """The newest runs, the newest first."""
        return self._runs.newest(limit)

    def show(self, run_id: str) -> RunDetails:
        """The run and its attempts.

        Raises:
            NotFound: there is no such run.
        """
        run = self._runs.get(run_id)
        attempts, validation = tuple(self._runs.attempts(run_id)), self._runs.validation(run_id)
        return RunDetails(**msgspec.structs.asdict(run), attempts=attempts, validation=validation)

    def cancel(self, run_id: str) -> None:
        """Call a run off; its step and all that the step started are killed within a second.

        Raises:
            Conflict: it has ended already.
        """
        self._runs.cancel(run_id)

    def retry(self, run_id: str, author: str, step: str = "") -> str:
        """Queue a failed or cancelled run again, to go on where it ended, or at a `step` that it has begun; its id.

        A run that succeeded, or has made its version, stays what it is, and so does one of another author: a new run of
        `author` takes over the steps before that one.

        Raises:
            NotFound: the run has begun no such step.
            Conflict: the run has not ended, succeeded and no step is named, or what its steps made is removed.
        """
        run = self.show(run_id)
        if run.state == "succeeded" and not step:
            raise Conflict(
                f"run {run_id} is succeeded",
                next=f"do steps of it again, as a new run: interlock jobs retry {run_id} --from STEP",
            )
        position = _position(run, step) if step else None
        done = [one for one in run.attempts if one.state == "succeeded"]
        kept = [one.name for one in done if position is None or one.position < position]
        folder = self._project.work / run_id
        if run.ended and kept and not folder.exists():
            raise Conflict(
                f"what the steps of run {run_id} made is gone: it ended at {run.ended_at}, [jobs] keep_days ago",
                next=f"begin anew: interlock jobs retry {run_id} --from {run.attempts[0].name}",
            )
        made = run.state == "succeeded" or run.version is not None
        if not run.ended or (author == run.author and not made):
            self._runs.retry(run_id, position)
            return run_id
        if not run.attempts:
            raise Conflict(
                f"run {run_id} is {run.author}'s and has begun no step", next="start your own: interlock train"
            )
        return self._fork(run, author, run.attempts[-1].position if position is None else position, kept)

    def _fork(self, run: RunDetails, author: str, position: int, kept: Sequence[str]) -> str:
        """A new run of `author` that begins at `position`, behind what the `kept` steps made."""
        folder = self._project.work / run.id
        new = uuid7_text()
        for name in kept:
            if (folder / name).exists():
                shutil.copytree(folder / name, self._project.work / new / name)
        self._runs.fork(run, author, new, position)
        return new

    def wait(
        self,
        run_id: str,
        on_progress: Callable[[RunDetails], None] | None = None,
        *,
        patience: float = PATIENCE_SECONDS,
    ) -> RunDetails:
        """Block until the run has ended; `on_progress` sees it at first and after every change.

        Raises:
            NotRunning: no worker has lived for `patience` seconds.
        """
        shown, give_up = None, time.monotonic() + patience
        while True:
            run = self.show(run_id)
            if run != shown and on_progress is not None:
                on_progress(run)
            if run.ended:
                return run
            shown = run
            if worker_lives(self._project):
                give_up = time.monotonic() + patience
            elif time.monotonic() >= give_up:
                raise NotRunning(
                    f"run {run_id} is {run.state}, but no worker lives that could carry it",
                    next="start one: interlock up",
                )
            time.sleep(LOOK_SECONDS)

    def log(self, run_id: str, step: str = "", *, follow: bool = False) -> Iterator[str]:
        """The text of the run's logs, attempt after attempt, each under a heading; of one step if named.

        `follow`: goes on until the run has ended.

        Raises:
            NotFound: there is no such run, or it has not begun such a step.
        """
        printed: dict[str, int] = {}
        while True:
            run = self.show(run_id)  # before the files: what they get after its end is not missed
            attempts = [attempt for attempt in run.attempts if step in ("", attempt.name)]
            if step and not attempts and (run.ended or not follow):
                raise _not_begun(run, step)
            for attempt in attempts:
                if attempt.log not in printed:
                    printed[attempt.log] = 0
                    yield f"== {attempt.name}, attempt {attempt.attempt}, {attempt.started_at}\n"
                yield from self._new_text(attempt, printed, whole=attempt.state != "running")
            if run.ended or not follow:
                return
            time.sleep(LOOK_SECONDS)

    def _new_text(self, attempt: Attempt, printed: dict[str, int], *, whole: bool) -> Iterator[str]:
        """What the log got since the last look; full lines only while the attempt may still write."""
        path = self._project.root / attempt.log
        if not path.exists():  # the attempt is only just beginning
            return
        with path.open("rb") as file:
            file.seek(printed[attempt.log])
            data = file.read()
        if not whole:
            data = data[: data.rfind(b"\n") + 1]
        printed[attempt.log] += len(data)
        if data:
            yield data.decode(errors="replace")


def _position(run: RunDetails, step: str) -> int:
    for attempt in run.attempts:
        if attempt.name == step:
            return attempt.position
    raise _not_begun(run, step)


def _not_begun(run: RunDetails, step: str) -> NotFound:
    begun = ", ".join(dict.fromkeys(attempt.name for attempt in run.attempts)) or "none"
    return NotFound(f"run {run.id} has begun no step {step} (begun: {begun})")
