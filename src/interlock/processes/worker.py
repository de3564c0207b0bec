"""`python -m interlock.processes.worker --project DIR`: carries the project's runs and fires its schedules.

SIGTERM, and the end of its parent: kills the running step, which the next worker begins anew, and leaves.
Failed: exit 1, one JSON line `{"code", "message", "next"}` on stderr.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec

from interlock.core.clock import SystemClock
from interlock.core.errors import InterlockError
from interlock.core.lifeline import tie_to_parent
from interlock.core.project import Project
from interlock.jobs import notices
from interlock.jobs.port import StepSpec
from interlock.jobs.records import Runs
from interlock.jobs.runner import Runner
from interlock.jobs.schedules import Schedules
from interlock.jobs.worker import Worker, executor_id
from interlock.release import news
from interlock.store.database import Database

STEP = (sys.executable, "-m", "interlock.processes.step")
"""The command of a step; RUN_ID, STEP and ATTEMPT_FOLDER follow."""
NICE = 10
"""Training steps back where requests are answered on the same machine."""


def main(steps: Sequence[StepSpec], command: Sequence[str] = STEP) -> int:
    """Parse, carry, leave."""
    parser = argparse.ArgumentParser(prog="interlock worker", description="Carry the runs of a project.")
    parser.add_argument("--project", type=Path, help="the project's directory")
    parser.add_argument("--until-idle", action="store_true", help="leave when no run is open; fire no schedule")
    options = parser.parse_args()
    tie_to_parent(grace=5.0)
    os.nice(NICE)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        project = Project.find(options.project)
        database = Database(project.database)
        with executor_id(project) as executor:
            _serve(project, database, executor, steps, command, stop, until_idle=options.until_idle)
    except InterlockError as error:
        line = {"code": error.code, "message": error.message, "next": error.next}
        sys.stderr.write(msgspec.json.encode(line).decode() + "\n")
        return 1
    return 0


def _serve(
    project: Project,
    database: Database,
    executor: str,
    steps: Sequence[StepSpec],
    command: Sequence[str],
    stop: threading.Event,
    *,
    until_idle: bool,
) -> None:
    from interlock.jobs.dbos import (
        DbosEngine,
    )  # half a second: after the lock, so that others soon see that a worker lives

    settings, runs = project.settings(), Runs(database)
    runner = Runner(project, runs, steps, command, dict(os.environ))
    engine = DbosEngine(project.state / "jobs.db", executor)
    schedules = Schedules(database, waiting=settings.jobs.waiting)
    tellers = (partial(notices.tell, runs, settings), partial(news.tell, project, database, settings))
    worker = Worker(project, executor, engine, runner, runs, schedules, SystemClock(), settings, tellers)
    worker.start()
    sys.stdout.write(f"ready: {executor}\n")
    sys.stdout.flush()
    worker.serve(stop, until_idle=until_idle)
    database.close()


if __name__ == "__main__":
    from interlock.training.pipeline import STEPS

    sys.exit(main(STEPS))
