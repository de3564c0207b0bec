"""News of failed runs by webhook and mail, tried again until each channel has taken it."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import msgspec

from interlock.core.notify import deliver, mail, post
from interlock.core.settings import Settings
from interlock.jobs.records import Channel, Run, Runs

log = logging.getLogger("interlock.jobs")


def tell(runs: Runs, settings: Settings) -> bool:
    """Tell what is untold; whether everything was taken. A channel that is not set up counts as told."""
    send = partial(_tell, settings)
    return deliver(runs.untold(), send, runs.told, lambda run: f"that run {run.id} failed", log)


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


def _tell(settings: Settings, channel: Channel, run: Run) -> None:
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
