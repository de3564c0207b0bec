"""`interlock realised`: what a release was said to change, beside what it changes."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import msgspec

from interlock.cli.output import Columns, Part, Reply
from interlock.cli.session import Session
from interlock.core.clock import SystemClock
from interlock.core.errors import NotFound
from interlock.monitoring.realised import measure
from interlock.store.database import Database
from interlock.warehouse.ducklake import open_warehouse

EACH = 5
SHOWN = ("what", "diff rows", "predicted", "", "pairs", "realised", " ", "verdict")


def realised(endpoint: str, /, *, session: Session) -> Reply:
    """Show the changes that the signed decision diff predicted beside those that came, where the version before is a shadow.

    Args:
        endpoint: The endpoint.
    """
    project = session.project
    with closing(open_warehouse(project.warehouse, read_only=True)) as warehouse:
        measured = measure(project, Database(project.database), warehouse, endpoint, SystemClock().now())
        told = [(found, pairs.examples(EACH)) for found, _, pairs in measured]
    if not told:
        raise NotFound(
            f"{endpoint} has no version whose approval binds a diff against another one that is asked too",
            next=f"approve with --diff DIGEST, then: interlock promote {endpoint} --keep-shadow",
        )
    text: list[Part] = []
    for found, examples in told:
        text += [f"{found.release}: {found.sentence}", f"since {found.since}, revision {found.revision}; {found.diff}"]
        rows: list[dict[str, Any]] = [
            {
                "what": one.what, "diff rows": one.predicted.n, "predicted": f"{one.predicted.share:.2%}",
                "": f"{one.predicted.low:.2%} to {one.predicted.high:.2%}", "pairs": one.realised.n, "verdict": one.verdict,
                "realised": f"{one.realised.share:.2%}", " ": f"{one.realised.low:.2%} to {one.realised.high:.2%}",
            }
            for one in found.parts
        ]  # fmt: skip
        text += [*found.notes, Columns(rows, SHOWN)]
        text += [Columns(examples, tuple(examples[0]))] if examples else []
    shown = [{**msgspec.to_builtins(found), "examples": examples} for found, examples in told]
    step = next((f"interlock explain {one['prediction_id']}" for _, examples in told for one in examples), "")
    return Reply({"items": shown}, text, step)
