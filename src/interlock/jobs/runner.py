"""Carries a run: one step after the other, each attempt a child process with a folder and a log of its own.

The child is `COMMAND RUN_ID STEP ATTEMPT_FOLDER`, started in the project's directory in a process group of its own. The
whole group is killed when the attempt's time is over, the run is called off, or the worker leaves or dies.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from interlock.core.lifeline import Child
from interlock.core.project import Project
from interlock.jobs.port import EXIT_RETRY, StepError, StepSpec, read_error
from interlock.jobs.records import Attempt, AttemptState, Runs

LOOK_SECONDS = 0.1
"""How often a waiting runner looks whether the run is to go on."""


class WorkerLeaves(BaseException):
    """Raised out of `Runner.run` when the worker leaves: the run has not ended, and the engine keeps it open.

    Like KeyboardInterrupt no `Exception`, so that no engine books it as the run's own failure.
    """


class _CalledOff(Exception):
    """The run was cancelled while we carried it."""


class Runner:
    """Carries runs of the given steps; `environment` is the children's."""

    def __init__(
        self,
        project: Project,
        runs: Runs,
        steps: Sequence[StepSpec],
        command: Sequence[str],
        environment: Mapping[str, str],
    ) -> None:
        self._project = project
        self._runs = runs
        self._steps = steps
        self._command = command
        self._environment = environment
        self._leaving = threading.Event()
        self._busy = threading.Lock()
        self._peak_mb: float | None = None

    def run(self, run_id: str) -> None:
        """Bring the run to its end, beginning at the first step that is not done.

        Raises:
            WorkerLeaves: `leave` was called before the end.
        """
        with self._busy:
            if self._leaving.is_set():
                raise WorkerLeaves
            if not self._runs.begin(run_id):
                return
            try:
                self._carry(run_id)
            except _CalledOff:
                return
            except Exception as error:
                text = f"the worker failed: {type(error).__name__}: {error}"
                self._runs.end(run_id, "failed", StepError("error", text, "read .interlock/logs/worker.log"))
                raise

    def leave(self) -> None:
        """Kill the step that is running and take no further run; returns when that is done."""
        self._leaving.set()
        with self._busy:
            pass

    def _carry(self, run_id: str) -> None:
        done = {attempt.name for attempt in self._runs.attempts(run_id) if attempt.state == "succeeded"}
        for position, step in enumerate(self._steps, 1):
            error = None if step.name in done else self._step(run_id, position, step)
            if error is not None:
                self._runs.end(run_id, "failed", error)
                return
        for attempt in self._runs.attempts(
            run_id
        ):  # what steps have published stays for those who begin at a later one
            _remove(self._folder(attempt))
        self._runs.end(run_id, "succeeded")

    def _step(self, run_id: str, position: int, step: StepSpec) -> StepError | None:
        """Attempt the step until it is done (None), fails for good, or has used up its attempts."""
        failures = 0
        while True:
            error, again = self._attempt(run_id, position, step)
            failures += 1
            if error is None or not again or failures >= step.max_attempts:
                return error
            self._pause(run_id, step.interval_seconds * step.backoff ** (failures - 1))

    def _attempt(self, run_id: str, position: int, step: StepSpec) -> tuple[StepError | None, bool]:
        """One attempt: the error, and whether another attempt may mend it."""
        attempt = self._runs.begin_attempt(run_id, position, step.name)
        if attempt is None:
            raise _CalledOff
        state: AttemptState = "interrupted"
        error, again, self._peak_mb = None, False, None
        try:
            code = self._child(attempt, step)
            error, again = self._verdict(attempt, step, code)
            state = "succeeded" if error is None else "failed"
        except _CalledOff:
            state = "cancelled"
            raise
        finally:
            self._runs.end_attempt(attempt, state, error, self._peak_mb)
        return error, again

    def _child(self, attempt: Attempt, step: StepSpec) -> int | None:
        """The exit code of the attempt's process, or None if its time ran out. Its group is dead on return."""
        folder, log = self._folder(attempt), self._project.root / attempt.log
        _remove(folder)
        folder.mkdir(parents=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            child = Child(
                [*self._command, attempt.run_id, attempt.name, str(folder)],
                environment=self._environment,
                output=output,
                directory=self._project.root,
            )
        try:
            self._runs.set_pid(attempt, child.pid)
            deadline = time.monotonic() + step.timeout_seconds
            while time.monotonic() < deadline:
                if (code := child.wait(LOOK_SECONDS)) is not None:
                    return code
                self._look(attempt.run_id)
            return None
        finally:
            child.kill_group()
            child.wait()
            self._peak_mb = child.peak_mb

    def _verdict(self, attempt: Attempt, step: StepSpec, code: int | None) -> tuple[StepError | None, bool]:
        """What an exit code means; the reason goes to the end of the log too."""
        if code == 0:
            return None, False
        error, again = read_error(self._folder(attempt)), code is None or code < 0 or code == EXIT_RETRY
        if code is None:
            error = StepError(
                "deadline_exceeded", f"step {step.name} was killed after {step.timeout_seconds:g} s, its time-out"
            )
        elif error is None:
            end = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            error = StepError("error", f"step {step.name} {end}", f"read its log: interlock jobs logs {attempt.run_id}")
        with (self._project.root / attempt.log).open("a", encoding="utf-8") as log:
            log.write(f"interlock: {error.message}\n")
        return error, again

    def _pause(self, run_id: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._leaving.wait(min(left, LOOK_SECONDS))
            self._look(run_id)

    def _look(self, run_id: str) -> None:
        """Go on? The control database is asked, so a cancel comes through from any process."""
        if self._leaving.is_set():
            raise WorkerLeaves
        if not self._runs.is_running(run_id):
            raise _CalledOff

    def _folder(self, attempt: Attempt) -> Path:
        return self._project.work / attempt.run_id / f"{attempt.name}-{attempt.attempt}"


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
