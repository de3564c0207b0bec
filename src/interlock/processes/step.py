"""`python -m interlock.processes.step RUN_ID STEP ATTEMPT_FOLDER`: one step of a training run.

Done: ATTEMPT_FOLDER/done, and the process waits to be told the next step. Exit 1: failed for good, 75: another attempt may
help; the reason is in ATTEMPT_FOLDER/error.json, and the way there on stdout, which is the step's log.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from pathlib import Path

from interlock.core.errors import Conflict, InterlockError
from interlock.core.lifeline import tie_to_parent
from interlock.core.project import Project
from interlock.jobs.port import EXIT_REFUSED, EXIT_RETRY, NEXT, write_done, write_error

_HALF = str(max(1, len(os.sched_getaffinity(0)) // 2))
POOLS = {
    "OMP_NUM_THREADS": _HALF,
    "OPENBLAS_NUM_THREADS": _HALF,
    "MKL_NUM_THREADS": _HALF,
    "NUMEXPR_NUM_THREADS": _HALF,
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""Half of the cores, and no spinning: a pool on busy cores made HistGradientBoosting ten times slower than one thread."""
FORGET_PEAK = "5"
"""What /proc/self/clear_refs takes to measure the most memory anew."""


def main() -> int:
    """Do the step, and those that are told afterwards, as long as they go well."""
    lines = tie_to_parent()
    for name, value in POOLS.items():  # before anything imports numpy
        os.environ.setdefault(name, value)
    run, step, attempt = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    while True:
        code = _do(run, step, attempt)
        if code or lines is None:
            return code
        write_done(attempt, _peak_mb())
        run, step, folder, file = lines.get().split(NEXT)
        attempt = Path(folder)
        Path("/proc/self/clear_refs").write_text(FORGET_PEAK)
        with open(file, "ab") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _do(run: str, step: str, attempt: Path) -> int:
    try:
        _work(run, step, attempt)
    except InterlockError as error:
        write_error(attempt, error)
        return EXIT_RETRY if isinstance(error, Conflict) else EXIT_REFUSED
    except OSError as error:  # a full disk, a socket that went away
        log(traceback.format_exc())
        write_error(attempt, InterlockError(f"step {step} failed: {error}"))
        return EXIT_RETRY
    except Exception as error:  # noqa: BLE001 - the last stop: told in the log and in the run's record
        log(traceback.format_exc())
        told = f"step {step} failed: {type(error).__name__}: {error}"
        write_error(attempt, InterlockError(told, next="its traceback is in the log; please report it"))
        return EXIT_REFUSED
    return 0


def _work(run: str, step: str, attempt: Path) -> None:
    from interlock.jobs.records import Runs
    from interlock.store.database import Database
    from interlock.training.pipeline import Job, run_step

    project = Project.find()
    database = Database(project.database)
    record = Runs(database).get(run)
    database.close()
    began = time.monotonic()
    log(f"{step} of run {run} by {record.author}")
    run_step(Job(project, project.settings(), run, record.author, record.spec, attempt, log), step)
    log(f"done in {time.monotonic() - began:.1f} s")


def log(text: str) -> None:
    """A line of the step's log."""
    sys.stdout.write(text.rstrip("\n") + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
