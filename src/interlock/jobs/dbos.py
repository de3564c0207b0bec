"""The embedded engine: DBOS on a SQLite file of its own. The only file that knows DBOS.

DBOS gives the durable queue, one carrier per run over all workers, and it keeps the runs of dead workers. It records a
step only when the step has ended, so steps stand in our own records, and those of DBOS are not used.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from dbos import DBOS, DBOSPortableJSONSerializer, SetWorkflowID, error
from sqlalchemy import Engine, event

_QUEUE = "runs"
_POLL_SECONDS = 0.5
_VERSION = "runs-1"
"""DBOS gives a workflow only to workers of the version that enqueued it. Its default, a hash of the source, would
strand open runs at every update."""
_OPEN = ["ENQUEUED", "PENDING"]


class DbosEngine:
    """A `JobEngine`. DBOS is global to its process, so there is one of these per process.

    `executor` is this worker's id. The caller holds the lock that makes it unique: DBOS would run a live run twice.
    """

    def __init__(self, path: Path, executor: str) -> None:
        self._path = path
        self._executor = executor

    def start(self, work: Callable[[str], None]) -> None:
        """Open or create the database, take over what an earlier worker of this id left, and begin to work."""
        connection = sqlite3.connect(self._path)
        connection.execute("pragma journal_mode = wal")  # before DBOS opens it: two workers would lock each other out
        connection.close()
        event.listen(Engine, "connect", _give_clock)
        DBOS(
            config={
                "name": "interlock",
                "system_database_url": f"sqlite:///{self._path}",
                "executor_id": self._executor,
                "application_version": _VERSION,
                "serializer": DBOSPortableJSONSerializer(),  # the default is pickle
                "log_level": "WARNING",
            }
        )

        @DBOS.workflow(name="run", max_recovery_attempts=None)  # a worker may leave any number of times during a run
        def carry(run_id: str) -> None:
            work(run_id)

        self._workflow = carry
        DBOS.launch()
        DBOS.register_queue(_QUEUE, global_concurrency=1, polling_interval_sec=_POLL_SECONDS)

    def enqueue(self, run_id: str) -> None:
        """The run's id is the workflow's, so enqueuing twice is enqueuing once."""
        status = DBOS.get_workflow_status(run_id)
        if status is None:
            with SetWorkflowID(run_id):
                DBOS.enqueue_workflow(_QUEUE, self._workflow, run_id)
        elif status.status not in _OPEN:  # it ended before: this is a retry
            try:
                DBOS.rewind_workflow(run_id, queue_name=_QUEUE)
            except error.DBOSException:
                if run_id not in self.open():  # else another worker was first
                    raise

    def open(self) -> set[str]:
        """Waiting in the queue or carried by a worker, dead or alive."""
        found = DBOS.list_workflows(queue_name=_QUEUE, status=_OPEN, load_input=False, load_output=False)
        return {workflow.workflow_id for workflow in found}

    def take_over(self, executor: str) -> None:
        """Put the runs of a dead worker back into the queue."""
        DBOS._recover_pending_workflows([executor])  # private, but the open part of DBOS has no other door to it

    def stop(self) -> None:
        """Stop the queue and close the database; what is not finished stays with this executor id."""
        DBOS.destroy()


def _give_clock(connection: sqlite3.Connection, _: object) -> None:
    """From Python 3.12 on DBOS asks SQLite for fractions of a second, to which SQLite before 3.42 (Debian 12) says NULL."""
    if sqlite3.sqlite_version_info < (3, 42):
        connection.create_function("unixepoch", 1, lambda word: time.time() if word == "subsec" else None)
