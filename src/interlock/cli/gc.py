"""`interlock gc`: what nothing names any more."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import msgspec
from cyclopts import Parameter

from interlock.cli.identity import As, somebody
from interlock.cli.output import Reply
from interlock.cli.session import Session
from interlock.core.errors import Usage
from interlock.release.garbage import collect

Keep = Annotated[int, Parameter(help="Keep what is younger than so many days.")]


def gc(*, session: Session, dry_run: bool = False, yes: bool = False, keep_days: Keep = 30, as_: As = None) -> Reply:
    """Remove packages that were never approved, and extracts, that no route, approval, evaluation or log row names.

    Args:
        dry_run: Only say what would go.
        yes: Remove it.
    """
    if dry_run == yes or keep_days < 1:
        raise Usage(
            "one of --dry-run and --yes is needed, and a --keep-days of 1 or more", next="interlock gc --dry-run"
        )
    found = collect(session.project, somebody(as_), timedelta(days=keep_days), remove=yes)
    lines = [*(f"package {one}" for one in found.packages), *(f"extract {one}" for one in found.extracts)]
    word = "gone" if yes else "could go"
    text = f"{len(found.packages)} packages and {len(found.extracts)} extracts, {found.bytes / 1e6:.1f} MB: {word}"
    return Reply(
        {**msgspec.to_builtins(found), "removed": yes},
        (*lines, text),
        "interlock gc --yes" if lines and dry_run else "",
    )
