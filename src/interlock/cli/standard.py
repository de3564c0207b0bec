"""`interlock standard`: a version held against the release standard, rule by rule."""

from __future__ import annotations

import msgspec

from interlock.cli.identity import somebody
from interlock.cli.output import Columns, Part, Reply
from interlock.cli.session import Session
from interlock.evaluation.report_views import RULE_COLUMNS
from interlock.release.standard import Bench, judge, keep
from interlock.release.users import trust_of
from interlock.store.database import Database


def standard(version: str, /, *, session: Session, against: str = "") -> Reply:
    """Hold the newest evidence about a version against `[standard]` of interlock.toml, and keep the verdict.

    Args:
        version: MODEL:V
        against: MODEL:V in the champion's place.
    """
    project, database = session.project, Database(session.project.database)
    verdict = judge(Bench(project, database, version, against))
    digest = keep(database, somebody(None), verdict)
    beside = f"against {verdict.against.name}" if verdict.against else "no champion to compare with"
    failed = verdict.failed
    rules = msgspec.to_builtins(verdict.rules)
    text: list[Part] = [
        f"{version}, {beside}",
        Columns(rules, RULE_COLUMNS),
        "the standard is met"
        if verdict.passed
        else f"the standard is NOT met: {len(failed)} of {len(rules)} rules fail",
        f"kept as standard {digest}",
    ]
    steps = [f"interlock review {version}"]
    if failed:
        past = f"interlock approve {version} --override REASON --reason REASON --as NAME"
        allowed = trust_of(project).policy.limits_of(version.partition(":")[0]).override_hours
        steps = list(dict.fromkeys(one.next for one in failed if one.next)) or ([past] if allowed else steps)
    return Reply(
        {"digest": digest, "standard": msgspec.to_builtins(verdict)}, text, "\n".join(steps), failed=bool(failed)
    )
