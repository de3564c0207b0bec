"""Alerts to a webhook: one POST of JSON a change to FIRING or RESOLVED, tried again at the next pass until it is taken."""

from __future__ import annotations

import logging

import msgspec
from sqlalchemy import select, update

from interlock.core.notify import post
from interlock.core.settings import Settings
from interlock.monitoring.alerts import Row
from interlock.store.database import Database
from interlock.store.tables import alerts

log = logging.getLogger("interlock.monitoring")


def deliver(database: Database, settings: Settings) -> int:
    """Post every alert that the webhook has not heard of; how many it took. Without a webhook they count as told.

    The first failure ends the round, so that a dead webhook costs one time-out a pass.

    Raises:
        Misconfigured: the webhook is no http or https address.
    """
    with database.read() as connection:
        query = select(alerts).where(alerts.c.untold == 1).order_by(alerts.c.changed_at)
        waiting = [Row(**row._mapping) for row in connection.execute(query)]
    url, taken = settings.serve.webhook, 0
    for row in waiting:
        if url:
            try:
                post(url, document(row, settings), "[serve] webhook")
            except OSError as error:  # refused, timed out, an answer that is no success (HTTPError is one)
                log.warning(
                    "the webhook did not take %d alert(s), next try at the next pass: %s", len(waiting) - taken, error
                )
                break
        taken += 1
        with database.write() as connection:
            same = (alerts.c.id == row.id) & (alerts.c.state == row.state)
            connection.execute(update(alerts).where(same).values(untold=None))
    return taken if url else 0


def document(row: Row, settings: Settings) -> dict[str, object]:
    """The alert as people and programs get it: its columns, a sentence, what to look at first, and whom it concerns."""
    return {
        **{name: value for name, value in msgspec.structs.asdict(row).items() if name not in ("open", "untold")},
        "detail": msgspec.json.decode(row.detail),
        "text": row.sentence,
        "first_check": row.first_check,
        "owner": settings.endpoint.owner,
        "playbook": settings.endpoint.playbook,
    }
