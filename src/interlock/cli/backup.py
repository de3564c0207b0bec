"""`interlock backup`, `restore` and `upgrade`: the state of a project kept, put back, and brought up to date."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from interlock.cli.identity import As, somebody
from interlock.cli.output import Part, Reply
from interlock.cli.session import Session
from interlock.core.errors import Conflict, Misconfigured
from interlock.core.project import Project
from interlock.deploy import backup as kept
from interlock.deploy.doctor import examine
from interlock.deploy.restore import restore as put_back
from interlock.release import acts, audit
from interlock.store.database import HEAD, Database, copy_database, revision_of

SERIOUS = ("trust", "audit", "warehouse")
"""Checks that say something of the state itself; the others are about the machine."""


def backup(file: Path, /, *, session: Session) -> Reply:
    """Copy the whole state of the project into one file, while everything runs. Never private keys, recipe or data outside.

    Args:
        file: The new file.
    """
    made = kept.backup(session.project, file, session.progress)
    size = sum(one.size for one in made.files)
    document = {"file": str(file), **msgspec.to_builtins(made), "files": len(made.files), "bytes": size}
    text = f"{len(made.files)} files, {size / 1e6:.1f} MB, as they were on {made.created_at}, in {file}"
    return Reply(document, (text, f"root key {made.root}"), f"interlock restore {file} --to DIR")


def restore(
    file: Path,
    /,
    *,
    session: Session,
    to: Annotated[Path, Parameter(help="Where the project is to be: an empty directory, or none yet.")],
    as_: As = None,
) -> Reply:
    """Make a project of a backup, after every byte of it was checked; then look at it as `doctor` and `audit verify` do.

    Args:
        file: The backup.
    """
    made = put_back(file, to, somebody(as_), session.progress)
    project = Project(to.resolve())
    entries, checks = acts.verify(project), examine(project)
    wrong = [one for one in checks if not one.ok]
    text: list[Part] = [
        f"made {project.root} of {len(made.files)} files, as they were on {made.created_at}",
        f"root key {made.root}: is it the one you know?",
        f"{entries} audit entries, none edited, removed or inserted, and all that is signed is among them",
        *(f"{'ok   ' if one.ok else 'WRONG'}  {one.check:<10}{one.found}" for one in checks),
    ]
    steps = [f"cd {to}", *(one.mend for one in wrong if one.mend)]
    document = {"project": str(project.root), **msgspec.to_builtins(made), "files": len(made.files)}
    return Reply(
        document | {"entries": entries, "checks": msgspec.to_builtins(checks)},
        text,
        "\n".join(dict.fromkeys(steps)),
        failed=any(one.check in SERIOUS for one in wrong),
    )


def upgrade(*, session: Session, as_: As = None) -> Reply:
    """Bring the control database to this version, after a copy of it was kept beside it."""
    path = session.project.database
    before = revision_of(path)
    if before is None:
        raise Misconfigured(f"no control database at {path}", next="run: interlock init .")
    if before == HEAD:
        return Reply({"before": before, "after": HEAD, "copy": None}, (f"control.db is at {HEAD} already",))
    copy = path.with_name(f"control.{before}.db")
    if copy.exists():
        raise Conflict(f"{copy} was kept by an earlier upgrade", next=f"look whether you need it, then: rm {copy}")
    copy_database(path, copy)
    audit.append(Database(path), somebody(as_), "upgrade", session.project.root.name, {"at": before}, {"at": HEAD})
    return Reply(
        {"before": before, "after": HEAD, "copy": str(copy)}, (f"control.db {before} → {HEAD}; before: {copy}",)
    )
