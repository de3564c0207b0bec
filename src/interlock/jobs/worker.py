"""The worker's loop: hands runs to the engine, takes over those of dead workers, fires schedules; its chores beside it.

While it lives, a worker holds the lock file of its executor id, `.interlock/locks/worker-<n>.lock`. Whoever gets the
lock of another id knows that its worker is dead.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread

from interlock.core.clock import Clock
from interlock.core.errors import Conflict
from interlock.core.files import locked
from interlock.core.lifeline import Child
from interlock.core.project import Project
from interlock.core.settings import Settings
from interlock.jobs.cleaning import clean
from interlock.jobs.port import JobEngine
from interlock.jobs.records import Runs
from interlock.jobs.runner import Runner
from interlock.jobs.schedules import Schedules

LOOP_SECONDS = 0.2
LOOK_SECONDS = 1.0
"""Between looks for dead workers and due ticks."""
TELL_SECONDS = 1.0
TELL_AGAIN_SECONDS = 30.0
CLEAN_SECONDS = 3600.0
LEAVE_SECONDS = 2.0
"""So long a worker that leaves waits for news that is on its way; what was not taken the next worker tells."""
log = logging.getLogger("interlock.jobs")


@contextlib.contextmanager
def executor_id(project: Project) -> Iterator[str]:
    """Hold the lowest executor id that no living worker holds."""
    for number in itertools.count():
        name = f"worker-{number}"
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(project.locks / f"{name}.lock", timeout=0, holder=f"process {os.getpid()}"))
            except Conflict:
                continue
            yield name
            return


def worker_lives(project: Project) -> bool:
    """Whether some worker of the project lives. A shared lock asks, so that those who ask do not see each other."""
    for path in _locks(project):
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False


def start_worker(project: Project, environment: Mapping[str, str]) -> Child:
    """A worker that leaves when no run is open, and when we end: for `train --wait` where none lives.

    Its output goes to `.interlock/logs/worker.log`; `stop(grace)` ends it sooner.
    """
    project.logs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "interlock.processes.worker", "--project", str(project.root), "--until-idle"]
    with (project.logs / "worker.log").open("ab") as output:
        return Child(command, environment=environment, output=output)


@dataclass(frozen=True)
class Worker:
    """One worker. `executor` is the id whose lock it holds. `tellers` send news; each says whether all of it was taken."""

    project: Project
    executor: str
    engine: JobEngine
    runner: Runner
    runs: Runs
    schedules: Schedules
    clock: Clock
    settings: Settings
    tellers: Sequence[Callable[[], bool]]

    def start(self) -> None:
        """Begin to carry runs."""
        self.engine.start(self.runner.run)

    def serve(self, stop: Event, *, until_idle: bool = False) -> None:
        """Loop until `stop`, then kill what runs and leave.

        `until_idle`: fire no schedule, and leave when no run is open.
        """
        next_look, over = 0.0, Event()
        chores = Thread(target=self._chores, args=(over,), name="chores", daemon=True)  # a hung webhook holds nobody up
        chores.start()
        try:
            while not (until_idle and not self.runs.open()):
                self._hand_over()
                if time.monotonic() >= next_look:
                    next_look = time.monotonic() + LOOK_SECONDS
                    self._take_over()
                    if not until_idle:
                        self.schedules.fire(self.clock.now())
                if stop.wait(LOOP_SECONDS):
                    return
        finally:
            self.runner.leave()
            self.engine.stop()
            over.set()
            chores.join(LEAVE_SECONDS)

    def _chores(self, over: Event) -> None:
        """Tell the news, remove old files: of all workers one at a time."""
        next_clean = 0.0
        while True:
            last, pause = over.is_set(), TELL_SECONDS
            try:
                with contextlib.suppress(Conflict), locked(self.project.locks / "chores.lock", timeout=0):
                    told = [tell() for tell in self.tellers]
                    pause = TELL_SECONDS if all(told) else TELL_AGAIN_SECONDS
                    if time.monotonic() >= next_clean:
                        clean(self.project, self.runs, self.clock.now(), timedelta(days=self.settings.jobs.keep_days))
                        next_clean = time.monotonic() + CLEAN_SECONDS
            except Exception:  # the thread goes on: a full disk or a locked database passes
                log.exception("chores failed, they are tried again")
            if last:
                return
            over.wait(pause)

    def _hand_over(self) -> None:
        """Give the engine the oldest open run when it has none: one at a time over all workers, in order.

        A queue's own limit is not enough: DBOS on SQLite counts and claims in two steps, and two workers come between.
        """
        if self.runs.open():
            with contextlib.suppress(Conflict), locked(self.project.locks / "hand-over.lock", timeout=0):
                if not self.engine.open() and (waiting := self.runs.open()):
                    self.engine.enqueue(waiting[0])

    def _take_over(self) -> None:
        for path in _locks(self.project):
            if path.stem != self.executor:
                with contextlib.suppress(Conflict), locked(path, timeout=0):  # Conflict: that worker lives
                    self.engine.take_over(path.stem)


def _locks(project: Project) -> list[Path]:
    return sorted(project.locks.glob("worker-*.lock"))
