"""`interlock doctor`: what is wrong here, and what mends it."""

from __future__ import annotations

import msgspec

from interlock.cli.output import Reply
from interlock.cli.session import Session
from interlock.deploy.doctor import examine


def doctor(*, session: Session) -> Reply:
    """Look for what is wrong; each finding with what mends it."""
    checks = examine(session.project)
    wrong = [one for one in checks if not one.ok]
    text = [f"{'ok   ' if one.ok else 'WRONG'}  {one.check:<10}{one.found}" for one in checks]
    mending = "\n".join(dict.fromkeys(one.mend for one in wrong if one.mend))
    return Reply({"items": msgspec.to_builtins(checks)}, text, mending, failed=bool(wrong))
