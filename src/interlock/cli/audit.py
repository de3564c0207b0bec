"""`interlock audit`: the trail of every change and every refusal."""

from __future__ import annotations

from typing import Literal

import msgspec

from interlock.cli.output import Reply, items
from interlock.cli.session import Session
from interlock.release import audit as trail
from interlock.store.database import Database


def audit(
    action: Literal["list", "verify"] = "list", /, *, session: Session, subject: str = "", last: int | None = None
) -> Reply:
    """Show the audit trail, or check its chain of hashes.

    Args:
        action: verify checks every entry against the one before.
        subject: Only what was done to this version, endpoint or person.
        last: Only the newest so many (default: 30 in the table, all with --json; 0 for all).
    """
    database = Database(session.project.database)
    if action == "verify":
        count = trail.verify(database)
        return Reply({"entries": count, "intact": True}, (f"{count} entries, none edited, removed or inserted",))
    count = (0 if session.json else 30) if last is None else last
    rows = msgspec.to_builtins(trail.entries(database, subject, count))
    return items(rows, ("seq", "at", "actor", "action", "subject", "reason"), empty="nothing has been done here")
