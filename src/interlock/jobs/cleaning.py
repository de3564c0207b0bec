"""Files of runs that ended long ago go; their records stay, and so does whatever a retry of a younger run needs."""

from __future__ import annotations

import os
import shutil
from datetime import datetime, timedelta
from pathlib import Path

from interlock.core.clock import iso
from interlock.core.project import Project
from interlock.jobs.records import Runs

GONE = ".gone-"
"""Prefix of a folder that is being removed: nobody finds it under its name any more."""


def clean(project: Project, runs: Runs, now: datetime, keep: timedelta) -> int:
    """Remove logs and results of runs that ended more than `keep` ago; how many folders went."""
    gone = []
    for run_id in runs.ended_before(iso(now - keep)):
        for parent in (project.work, project.logs / "runs"):
            if (folder := parent / run_id).is_dir():
                gone.append(folder.with_name(GONE + run_id))
                os.rename(folder, gone[-1])
    for folder in {*gone, *_leftovers(project)}:
        shutil.rmtree(folder)
    return len(gone)


def _leftovers(project: Project) -> list[Path]:
    """What an earlier cleaning was killed amid."""
    return [*project.work.glob(f"{GONE}*"), *(project.logs / "runs").glob(f"{GONE}*")]
