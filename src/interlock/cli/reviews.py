"""`interlock reviews` and `comment`: what waits for whom, and what is said about a version without deciding it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from interlock.cli.identity import As, acting
from interlock.cli.output import Columns, Part, Reply, items
from interlock.cli.session import Session
from interlock.core.clock import SystemClock
from interlock.registry.approvals import Approval
from interlock.release import reviews as thread
from interlock.release import waiting
from interlock.release.keys import Keys
from interlock.release.users import trust_of
from interlock.store.database import Database

SHOWN = ("time", "decision", "scope", "approver", "self_approved", "reason")


def reviews(*, session: Session) -> Reply:
    """List the versions that somebody has to look at, the longest waiting first."""
    project = session.project
    found = waiting.waiting(project, Database(project.database), trust_of(project), SystemClock().now())
    step = "\n".join(dict.fromkeys(f"interlock review {one.name}" for one in found))
    columns = ("name", "label", "author", "state", "since", "who", "why")
    return items(msgspec.to_builtins(found), columns, empty="nothing waits for a review", next=step)


def comment(
    version: str, /, *, session: Session, text: Annotated[str, Parameter(help="What you saw.")], as_: As = None
) -> Reply:
    """Say something about a version; it decides nothing.

    Args:
        version: MODEL:V
    """
    project, actor = session.project, acting(as_)
    made = thread.comment(project, Database(project.database), actor, Keys.find(), version, text)
    return Reply(msgspec.to_builtins(made), (f"{actor} commented on {version}",), f"interlock review {version}")


def decided(decisions: Sequence[Approval], found: Sequence[thread.Head]) -> list[dict[str, Any]]:
    """Decisions for programs; `stale`: what of the evidence of an approval has been replaced since."""
    return [msgspec.to_builtins(one.predicate) | {"stale": thread.stale(one.predicate, found)} for one in decisions]


def told(decisions: Sequence[dict[str, Any]], notes: Sequence[dict[str, Any]] = ()) -> list[Part]:
    """Decisions and comments for people, in their order; under them which approvals are stale."""
    rows = in_order(decisions, notes)
    lines = [
        f"stale: {one['approver']}'s of {one['time']}: {'; '.join(one['stale'])}" for one in decisions if one["stale"]
    ]
    return [Columns(rows, SHOWN), *lines] if rows else []


def in_order(decisions: Sequence[dict[str, Any]], notes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Comments among the decisions, in the columns of these."""
    spoken = [
        {"time": one["at"], "decision": "comment", "scope": "", "approver": one["author"], "reason": one["text"]}
        for one in notes
    ]
    return sorted([*decisions, *spoken], key=lambda row: str(row["time"]))
