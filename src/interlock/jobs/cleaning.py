"""Files of runs that ended long ago go; their records stay, and so does whatever a retry of a younger run needs."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta

from interlock.core.clock import iso
from interlock.core.project import Project
from interlock.jobs.records import Runs


def clean(project: Project, runs: Runs, now: datetime, keep: timedelta) -> None:
    """Remove logs and results of runs that ended more than `keep` ago."""
    for run_id in runs.ended_before(iso(now - keep)):
        for folder in (project.work / run_id, project.logs / "runs" / run_id):
            if folder.is_dir():
                shutil.rmtree(folder)
