"""A project with jobs and real workers: what the contract and the fault tests of the jobs room share."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from interlock.core.lifeline import Child
from interlock.core.project import Project
from interlock.jobs.client import Jobs, RunDetails
from interlock.jobs.port import RunSpec
from interlock.jobs.records import Runs
from interlock.jobs.schedules import Schedules
from interlock.store.database import Database

SCRIPT = Path(__file__).with_name("tiny_pipeline.py")
PATIENCE = 30.0
SETTINGS = """
model = "tiny"
recipe = "recipe:train"
extract = { sql = "SELECT 1", id = "id", event_time = "at", label = "label" }
inputs = {}
"""


class Lab:
    """Submits runs of the tiny pipeline and starts workers; `close` ends what it started."""

    def __init__(self, root: Path, settings: str = "", **environment: str) -> None:
        root.mkdir(parents=True, exist_ok=True)
        (root / "interlock.toml").write_text(SETTINGS + settings)
        self.project = Project(root)
        self.database = Database(self.project.database, create=True)
        self.jobs = Jobs(self.project, self.database)
        self.runs = Runs(self.database)
        self.schedules = Schedules(self.database)
        self.environment = {**os.environ, **environment}
        self.workers: list[Child] = []

    def worker(self, *flags: str) -> Child:
        """A new worker that is ready."""
        command = [sys.executable, "-W", "error", str(SCRIPT), "--project", str(self.project.root), *flags]
        child = Child(command, environment=self.environment, output=subprocess.PIPE, stderr=sys.stderr.fileno())
        self.workers.append(child)
        assert child.process.stdout is not None
        assert re.fullmatch(rb"ready: worker-\d+\n", child.process.stdout.readline())
        return child

    def submit(self, **behaviour: str) -> str:
        return self.jobs.submit(RunSpec(model="tiny", parameters=behaviour), "ann")

    def wait(self, run_id: str) -> RunDetails:
        return self.jobs.wait(run_id)

    def hanging(self, run_id: str, attempt: int = 1) -> tuple[int, int]:
        """Wait until a step of the run hangs for the `attempt`-th time; the pids of the step and of its child."""
        text = ""
        for part in self.jobs.log(run_id, follow=True):
            text += part
            found = re.findall(r"hanging: (\d+) (\d+)", text)
            if len(found) == attempt:
                return int(found[-1][0]), int(found[-1][1])
        raise AssertionError(f"the run ended without hanging:\n{text}")

    def log(self, run_id: str, step: str = "") -> str:
        return "".join(self.jobs.log(run_id, step))

    def close(self) -> None:
        for worker in self.workers:
            worker.kill_group()
            worker.process.wait()
            assert worker.process.stdout is not None
            worker.process.stdout.close()
        self.database.close()


def story(run: RunDetails) -> list[tuple[str, int, str]]:
    """Step, attempt, state of every attempt in the order in which they began."""
    return [(one.name, one.attempt, one.state) for one in sorted(run.attempts, key=lambda one: one.started_at)]


def gone(pid: int) -> bool:
    """Whether the process is dead; one that nobody has reaped yet is."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Look until it is true. For what other processes do and nobody reports."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, f"never: {what}"
        time.sleep(0.02)
