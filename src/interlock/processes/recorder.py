"""`python -m interlock.processes.recorder`: moves the journals into the warehouse. One a project, held by a lock."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pyarrow as pa

from interlock.core.errors import InterlockError
from interlock.core.files import locked
from interlock.core.lifeline import tie_to_parent
from interlock.core.project import Project
from interlock.core.spare import SpareTime
from interlock.predlog.recorder import Recorder
from interlock.warehouse.ducklake import open_warehouse

NICE = 5
"""Answers come before bookkeeping: what is logged is safe in the journals, and still gets its share of a busy machine."""
MAINTAIN_SECONDS = 300.0
RENEW_SECONDS = 600.0
"""The warehouse's engine remembers something of every commit, some 25 KB: it is opened anew so often."""


def main() -> int:
    """Record until SIGTERM, then write what is there."""
    parser = argparse.ArgumentParser(
        prog="interlock recorder", description="Move the prediction log into the warehouse."
    )
    parser.add_argument("--project", type=Path, default=None)
    options = parser.parse_args()
    tie_to_parent(grace=10.0)
    os.nice(NICE)
    pa.set_memory_pool(pa.system_memory_pool())  # gives back what it does not need: 15 to 30 MB
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        _record(Project.find(options.project), stop)
    except InterlockError as error:
        sys.stderr.write(f"{error.message}. {error.next}\n")
        return 1
    return 0


def _record(project: Project, stop: threading.Event) -> None:
    project.journals.mkdir(parents=True, exist_ok=True)
    with locked(project.locks / "recorder.lock", timeout=10.0, holder=f"recorder (pid {os.getpid()})"):
        warehouse = open_warehouse(project.warehouse, create=True, threads=1)
        window = timedelta(days=project.settings().endpoint.feedback_days)
        recorder = Recorder(project.journals, warehouse, _say, window=window, spare=SpareTime())
        keeper = threading.Thread(target=maintain, args=(project, stop), name="maintenance", daemon=True)
        keeper.start()
        _say("ready: recorder")
        while not stop.is_set():
            recorder.run(stop, until=time.monotonic() + RENEW_SECONDS)
            recorder.forget_old_marks()
            warehouse.close()
            if not stop.is_set():
                recorder.sink = warehouse = open_warehouse(project.warehouse, threads=1)


def maintain(project: Project, stop: threading.Event, seconds: float = MAINTAIN_SECONDS) -> None:
    """Merge small files and drop what nobody needs, often enough that no merge holds the lock for long."""
    while not stop.wait(seconds):
        try:
            with closing(open_warehouse(project.warehouse, threads=1)) as warehouse:
                warehouse.maintain()
        except Exception as error:  # noqa: BLE001 - also a defect of the engine: else nothing would ever be merged again
            what = error.message if isinstance(error, InterlockError) else f"{type(error).__name__}: {error}"
            _say(f"maintenance will be tried again in {seconds:.0f} s: {what.splitlines()[0]}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
