"""`interlock init`: a project from nothing, from a CSV file, or around an `interlock.toml` that somebody wrote."""

from __future__ import annotations

import os
import re
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

from interlock.cli.identity import VARIABLE, As, somebody
from interlock.cli.output import Reply
from interlock.cli.session import Session
from interlock.core.errors import Conflict, Usage
from interlock.core.files import write_atomic, write_new
from interlock.core.project import Project
from interlock.core.settings import Mode, load_settings
from interlock.release.keys import Keys
from interlock.release.users import init_trust
from interlock.training import starter
from interlock.training.guess import Plan, guess
from interlock.warehouse.ducklake import open_warehouse
from interlock.warehouse.session import quoted

SAMPLE_ROWS = 1_000_000
"""Guesses look at no more."""


def init(
    folder: Path,
    /,
    *,
    session: Session,
    from_: Path | None = None,
    label: str = "",
    time: str = "",
    mode: Mode | None = None,
    as_: As = None,
) -> Reply:
    """Make a project: settings, recipe, keys, trust root, and a warehouse with your file in it.

    Args:
        folder: The project's directory; `.` for one with an interlock.toml.
        from_: A CSV file: its columns' types are guessed and explained.
        label: The column to predict.
        time: The column that says when a row could have been asked about.
        mode: solo: one person may train, sign and release; team: nobody signs their own model.
    """
    project = Project(folder.resolve())
    owner, keys = somebody(as_), Keys.find()
    if project.config.exists():
        if from_ is not None:
            raise Conflict(f"{project.config} is there already", next=f"interlock data add {from_} --as TABLE")
        mode = _mode_of(project, mode)
        fingerprint = init_trust(project, mode, owner, keys)
        made = ["keys, trust root and state for the interlock.toml that is here"]
        steps = [*_enter(folder), *_be(owner), "interlock data add FILE.csv --as TABLE", "interlock train --wait"]
        return _reply(project, mode, owner, fingerprint, made, steps)
    if (from_ is None) != (not label):
        raise Usage("--from and --label go together", next=f"interlock init {folder} --from FILE.csv --label COLUMN")
    recipe = project.root / "recipe.py"
    if recipe.exists():
        raise Conflict(f"{recipe} is there already, and is not overwritten", next="choose another directory")
    mode = mode or _ask_mode()
    with ExitStack() as undo:
        fresh = not project.root.exists()
        project.root.mkdir(parents=True, exist_ok=True)
        for path in (project.config, recipe):
            undo.callback(path.unlink, missing_ok=True)
        undo.callback(shutil.rmtree, project.root if fresh else project.state, ignore_errors=True)
        made, first = _write(project, from_, label, time, mode, owner)
        fingerprint = init_trust(project, mode, owner, keys)
        undo.pop_all()
    return _reply(project, mode, owner, fingerprint, made, [*_enter(folder), *_be(owner), *first])


def _write(
    project: Project, source: Path | None, label: str, time: str, mode: Mode, owner: str
) -> tuple[list[str], list[str]]:
    """The files of a new project; what was made, and what comes next."""
    model = kebab(project.root.name)
    warehouse = open_warehouse(project.warehouse, create=True)
    plan, made, about = starter.EXAMPLE, [], "an example to fill in: your table, its columns, the label"
    steps = ["interlock data add FILE.csv --as mytable", "interlock train --wait"]
    if source is not None:
        table = kebab(source.stem).replace("-", "_")
        loaded = warehouse.load(table, source)
        rows = warehouse.query(f"from {quoted(table)} limit $rows", {"rows": SAMPLE_ROWS})
        plan = guess(rows, table, label, time)
        made, about = [f"table {table}, {loaded.rows} rows", *_guessed(plan, label)], "every guess with its reason"
        steps = ["interlock train --wait"]
    write_new(project.config, starter.settings_text(model, plan, label or starter.EXAMPLE_LABEL, mode, owner).encode())
    write_new(project.root / "recipe.py", starter.recipe_text(model, plan).encode())
    _ignore(project.root / ".gitignore")
    return [*made, f"interlock.toml ({about}), recipe.py, .gitignore"], steps


def _guessed(plan: Plan, label: str) -> list[str]:
    left = [f"left out {one.name}: {one.why}" for one in plan.left_out]
    return [
        f"label {label}: {plan.task}, {plan.task_why}",
        f"id {plan.id}: {plan.id_why}",
        f"event time {plan.event_time}: {plan.event_time_why}",
        f"inputs {', '.join(f'{one.name} ({one.type})' for one in plan.inputs)}",
        *left,
    ]


def _ignore(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    if starter.IGNORED not in lines:
        write_atomic(path, "".join(f"{line}\n" for line in (*lines, starter.IGNORED)).encode())


def _mode_of(project: Project, asked: Mode | None) -> Mode:
    """What interlock.toml says; the signed trust root holds the same."""
    settings = load_settings(project.config)
    if asked is not None and asked != settings.mode:
        raise Usage(f'interlock.toml says mode = "{settings.mode}"', next="change it there, then: interlock init .")
    return settings.mode


def _ask_mode() -> Mode:
    if not sys.stdin.isatty():
        return "team"
    answer = input("Who works on this: one person who trains, signs and releases (solo), or a team? [team] ")
    return "solo" if answer.strip().lower() in ("s", "solo") else "team"


def _enter(folder: Path) -> list[str]:
    return [] if folder.resolve() == Path.cwd() else [f"cd {folder}"]


def _be(owner: str) -> list[str]:
    return [] if os.environ.get(VARIABLE) == owner else [f"export {VARIABLE}={owner}"]


def _reply(project: Project, mode: Mode, owner: str, fingerprint: str, made: list[str], steps: list[str]) -> Reply:
    if mode == "solo":
        who = f"{owner} trains, signs and releases (solo)"
    else:
        who = f"{owner} trains and releases (team); a second person signs: interlock keys generate NAME"
    document = {"project": str(project.root), "mode": mode, "owner": owner, "root": fingerprint, "next": steps}
    return Reply(document, (f"made {project.root}", *(f"  {line}" for line in made), who), "\n".join(steps))


def kebab(name: str) -> str:
    """`My Customers 2026` → `my-customers-2026`."""
    found = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return found if found[:1].isalpha() else f"model-{found}".rstrip("-")
