"""News of failed runs by webhook and mail, tried again until each channel has taken it."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from interlock.core.errors import InterlockError
from interlock.core.notify import mail, post
from interlock.core.settings import Settings
from interlock.jobs.records import Channel, Run, Runs

log = logging.getLogger("interlock.jobs")


def tell(runs: Runs, settings: Settings) -> bool:
    """Tell what is untold; whether everything was taken. A channel that is not set up counts as told.

    A channel's first failure ends its round, so that a dead one costs one time-out.
    """
    dead: set[Channel] = set()
    for run, channels in runs.untold():
        left: list[Channel] = []
        for channel in channels:
            try:
                if channel not in dead:
                    _tell(channel, run, settings)
                    continue
            except (OSError, InterlockError) as error:  # OSError: refused, timed out, no success; SMTPException is one
                log.warning("the %s did not take that run %s failed, it is tried again: %s", channel, run.id, error)
                dead.add(channel)
            left.append(channel)
        runs.told(run, left)
    return not dead


def document(run: Run, settings: Settings) -> dict[str, Any]:
    """The news as programs get it: the run's columns, a sentence, what to do, and whom it concerns."""
    why = run.error.message if run.error else "no reason was left"
    by = f", made by schedule {run.schedule}," if run.schedule else ""
    first = f"interlock jobs logs {run.id}\ninterlock jobs retry {run.id}"
    return {
        "event": "run_failed",
        **msgspec.to_builtins(run),
        "text": f"run {run.id} of {run.model}{by} failed: {why}",
        "first_check": f"{run.error.next}\n{first}" if run.error and run.error.next else first,
        "owner": settings.endpoint.owner,
        "playbook": settings.endpoint.playbook,
    }


def _tell(channel: Channel, run: Run, settings: Settings) -> None:
    body = document(run, settings)
    if channel == "webhook" and settings.jobs.webhook:
        post(settings.jobs.webhook, body, "[jobs] webhook")
    if channel == "mail" and settings.jobs.mail:
        lines = [
            body["text"],
            "",
            body["first_check"],
            "",
            *(f"{name}: {body[name]}" for name in ("owner", "playbook")),
        ]
        mail(settings.mail, settings.jobs.mail, f"{run.model}: a run failed", "\n".join(lines))
