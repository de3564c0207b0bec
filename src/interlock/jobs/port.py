"""What a run is made of, how its steps answer, and what an engine owes the runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from interlock.core.errors import InterlockError
from interlock.core.files import write_atomic

EXIT_REFUSED = 1
"""A step's exit code for an error that another attempt would only repeat: a recipe that raises, a wrong setting."""
EXIT_RETRY = 75
"""A step's exit code (EX_TEMPFAIL) for a failure that may pass; death by a signal counts as one too."""


NEXT = "\t"
"""Between run id, step, attempt folder and log, in the line that tells a step's process what to do next."""


class StepSpec(msgspec.Struct, frozen=True):
    """One step of a pipeline and how patiently it is run.

    After the n-th failed attempt the next one waits `interval_seconds * backoff ** (n - 1)`. `timeout_seconds` is for
    one attempt; running out of it is a failure that may pass.
    """

    name: str
    max_attempts: int = 3
    interval_seconds: float = 1.0
    backoff: float = 2.0
    timeout_seconds: float = 3600.0


class RunSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to run: the model, the extract (empty = the default one), and what overrides `interlock.toml`."""

    model: str
    extract: str = ""
    parameters: dict[str, Any] = {}
    variables: dict[str, str | int | float | bool] = {}


class StepError(msgspec.Struct, frozen=True):
    """Why a step failed, in the words of the error tree."""

    code: str
    message: str
    next: str = ""


def write_error(attempt_folder: Path, error: InterlockError) -> None:
    """For the step's process: leave the reason for the runner, then exit with EXIT_REFUSED or EXIT_RETRY."""
    told = StepError(code=error.code, message=error.message, next=error.next)
    write_atomic(attempt_folder / "error.json", msgspec.json.encode(told))


def read_error(attempt_folder: Path) -> StepError | None:
    """What `write_error` left; None if the step died without a word."""
    try:
        return msgspec.json.decode((attempt_folder / "error.json").read_bytes(), type=StepError)
    except FileNotFoundError:
        return None


def write_done(attempt_folder: Path, peak_mb: float) -> None:
    """For the step's process: the step is done, with so much memory at the most; the process can do the next one."""
    write_atomic(attempt_folder / "done", str(peak_mb).encode())


def read_done(attempt_folder: Path) -> float | None:
    """What `write_done` left; None while the step goes on."""
    try:
        return float((attempt_folder / "done").read_bytes())
    except FileNotFoundError:
        return None


class JobEngine(Protocol):
    """A durable queue of runs, shared by every worker of a project.

    The engine knows run ids and nothing else. What state a run is in and which of its steps are done stands in the
    control database (`jobs.records`); cancelling and retrying are changes there. The law that every engine obeys:

    * *order*: runs start in the order in which they were enqueued;
    * *one carrier*: while a worker carries a run, no other one is given it;
    * *nothing lost*: a run whose worker was killed, or left, stays open under the id of that worker's executor until
      `take_over` or the next worker of that id puts it back, and then `work` is called with it again;
    * *errors*: `work` that raises ends the engine's interest in the run, and the error is in the worker's log.
    """

    def start(self, work: Callable[[str], None]) -> None:
        """Call `work(run_id)` for one run after the other, in a thread, until `stop`."""
        ...

    def enqueue(self, run_id: str) -> None:
        """Put a run at the end of the queue. Does nothing while the run is open; one that has ended comes again."""
        ...

    def open(self) -> set[str]:
        """The runs that wait in the queue or are carried by some worker, dead or alive."""
        ...

    def take_over(self, executor: str) -> None:
        """Put the open runs of a dead worker back into the queue.

        The caller holds the lock of that executor id: the engine cannot know who is dead.
        """
        ...

    def stop(self) -> None:
        """Take no more work and let go of the database."""
        ...
