"""`interlock audit`: the trail of every change and every refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter

from interlock.cli.identity import As, somebody
from interlock.cli.moments import moment
from interlock.cli.output import Reply, items
from interlock.cli.session import Session
from interlock.core.errors import Usage
from interlock.release import acts
from interlock.release import audit as trail
from interlock.store.database import Database


def audit(
    what: Annotated[Literal["list", "verify", "export", "mend"], Parameter(name="ACTION")] = "list",
    to: Path | None = None,
    /,
    *,
    session: Session,
    subject: str = "",
    actor: str = "",
    action: str = "",
    since: str = "",
    until: str = "",
    last: int | None = None,
    file: Path | None = None,
    reason: str = "",
    as_: As = None,
) -> Reply:
    """Show the audit trail, check it, or write it out.

    Args:
        what: verify checks every entry against the one before, and against everything that is signed; mend tells of signed
            acts whose process was killed before it could.
        to: export: the new file, an entry a line.
        subject: Only what was done to this version, endpoint or person.
        actor: Only what this person did.
        action: Only this, as in: deploy.
        since: Only from this time on: ISO with an offset, or how long ago (30s, 15m, 1h, 2d).
        until: Only before this time.
        last: Only the newest so many (default: 30 in the table, all with --json; 0 for all).
        file: verify: an exported trail, on any machine.
        reason: mend: why; goes into the trail.
    """
    match what:
        case "verify" if file is not None:
            end = trail.verify_export(file)
            text = f"{end.seq} entries, none edited, removed or inserted; the last is {end.hash}"
            return Reply({"entries": end.seq, "intact": True, "hash": end.hash}, (text,))
        case "verify":
            count = acts.verify(session.project)
            return Reply({"entries": count, "intact": True}, (f"{count} entries, none edited, removed or inserted",))
        case "export":
            if to is None:
                raise Usage("export needs a file", next="interlock audit export audit.jsonl")
            end = trail.export(Database(session.project.database), to)
            step = f"interlock audit verify --file {to}"
            return Reply({"file": str(to), "entries": end.seq, "hash": end.hash}, (f"{end.seq} entries in {to}",), step)
        case "mend":
            if not reason.strip():
                raise Usage("a mending needs a reason", next='--reason "killed while the disk was full"')
            found = acts.mend(session.project, somebody(as_), reason)
            return Reply(
                {"acts": found}, [f"told: {one}" for one in found] or ("nothing is missing",), "interlock audit verify"
            )
        case "list":
            count = (0 if session.json else 30) if last is None else last
            first, end_ = (moment(*one) if one[1] else "" for one in (("--since", since), ("--until", until)))
            found_ = trail.entries(
                Database(session.project.database), subject, count, actor=actor, action=action, since=first, until=end_
            )
            columns = ("seq", "at", "actor", "action", "subject", "reason", "origin")
            return items(msgspec.to_builtins(found_), columns, empty="nothing has been done here")
