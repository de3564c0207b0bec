"""`interlock evaluate`: a version judged anew, on the rows that it has not seen."""

from __future__ import annotations

import msgspec

from interlock.cli.evidence import evidence
from interlock.cli.identity import somebody
from interlock.cli.output import Reply
from interlock.cli.session import Session
from interlock.evaluation.subjects import evaluate_version
from interlock.release import audit
from interlock.store.database import Database


def evaluate(version: str, /, *, session: Session, against: str = "") -> Reply:
    """Evaluate a version anew and keep the report; `review` shows the newest.

    Args:
        version: MODEL:V
        against: MODEL:V to compare with on identical rows (default: the champion).
    """
    project = session.project
    database = Database(project.database)
    report, digest = evaluate_version(project, database, version, against, session.progress)
    said = {"evaluation": digest, "against": report.against.name if report.against else None}
    audit.append(database, somebody(None), "evaluate", version, None, said)
    return Reply(
        {"evaluation": digest, "report": msgspec.to_builtins(report)},
        (*evidence(report), f"kept as evaluation {digest}"),
        f"interlock review {version}",
    )
