"""`interlock train`: one run of the training pipeline, now."""

from __future__ import annotations

import os
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from interlock.cli.identity import As, somebody
from interlock.cli.jobs import jobs_of, next_step, run_row, seconds
from interlock.cli.output import Reply
from interlock.cli.session import Flags, Session
from interlock.core.errors import Usage, class_of
from interlock.core.project import Project
from interlock.core.settings import Settings, parse_value
from interlock.jobs.client import RunDetails
from interlock.jobs.port import RunSpec
from interlock.jobs.worker import start_worker, worker_lives
from interlock.release import audit
from interlock.release.keys import Keys, prove
from interlock.release.roles import require_role
from interlock.release.users import trust_of
from interlock.store.database import Database

Params = Annotated[tuple[str, ...], Parameter(name="--param", help="NAME=VALUE for the recipe; again for several.")]
Variables = Annotated[
    tuple[str, ...], Parameter(name="--var", help="NAME=VALUE for $NAME in the extract's SQL; again for several.")
]


def train(
    *,
    session: Session,
    param: Params = (),
    var: Variables = (),
    extract: str = "",
    wait: bool = False,
    priority: int = 0,
    dry_run: bool = False,
    as_: As = None,
) -> Reply:
    """Train a version: extract, validate, split, train, evaluate, prove the round trip, package.

    Args:
        extract: Train on [extracts.NAME].
        wait: Show the steps until the run has ended; starts a worker where none lives.
        priority: Of waiting runs the one with the highest is next.
        dry_run: Try data and recipe on a sample; nothing is kept.
    """
    project = session.project
    spec = run_spec(project.settings(), param, var, extract)
    if dry_run:
        return _dry_run(session, spec)
    jobs = jobs_of(session)
    author = trusted_author(project, as_)
    run_id = jobs.submit(spec, author, priority)
    after = {"run": run_id, "spec": msgspec.to_builtins(spec), "priority": priority}
    audit.append(Database(project.database), author, "train", spec.model, None, after)
    if wait:
        return _ended(_wait(session, run_id))
    lives = worker_lives(project)
    steps = f"interlock jobs logs {run_id} --follow"
    return Reply(
        run_row(jobs.show(run_id)),
        (f"run {run_id} is queued" + ("" if lives else "; no worker lives that could carry it"),),
        steps if lives else f"interlock up --detach\n{steps}",
    )


def run_spec(settings: Settings, params: tuple[str, ...], variables: tuple[str, ...], extract: str) -> RunSpec:
    """What to run, from the words of the command line.

    Raises:
        Usage: a word is no NAME=VALUE, or no such variable is in the extract.
        Misconfigured: there is no such extract.
    """
    known = settings.extract_named(extract).variables
    values = _pairs("--var", variables)
    for name, value in values.items():
        if name not in known:
            there = ", ".join(known) or "none"
            raise Usage(
                f"the extract has no variable {name} (there: {there})", next="declare it under [extract.variables]"
            )
        if isinstance(known[name], str) and not isinstance(value, str):
            values[name] = dict(word.split("=", 1) for word in variables)[name]  # `2013` may be a text
    return RunSpec(settings.model, extract, _pairs("--param", params), values)


def trusted_author(project: Project, name: str | None) -> str:
    """Who trains: `--as`, `INTERLOCK_USER` or the user of the operating system, proved by their key.

    Raises:
        Refused: they are not trusted as an author, or hold another key.
    """
    author, trust = somebody(name), trust_of(project)
    require_role(trust, author, "train")
    prove(author, trust, Keys.find())
    return author


def _pairs(flag: str, words: tuple[str, ...]) -> dict[str, Any]:
    if not all("=" in word for word in words):
        raise Usage(f"{flag} {' '.join(words)}: expected NAME=VALUE", next=f"as in: {flag} NAME=VALUE")
    return {name: parse_value(text) for name, text in (word.split("=", 1) for word in words)}


def _wait(session: Flags, run_id: str) -> RunDetails:
    project = session.project
    own = None if worker_lives(project) else start_worker(project, os.environ)
    said: set[tuple[str, int, str]] = set()

    def tell(run: RunDetails) -> None:
        for one in run.attempts:
            if (one.name, one.attempt, one.state) not in said:
                said.add((one.name, one.attempt, one.state))
                took = "" if (spent := seconds(one)) is None else f" in {spent:.1f} s"
                again = f" (attempt {one.attempt})" if one.attempt > 1 else ""
                session.progress(f"  {one.name:<10} {one.state}{took}{again}")

    session.progress(f"run {run_id}")
    try:
        return jobs_of(session).wait(run_id, tell)
    finally:
        if own is not None:
            own.stop(10.0)


def _ended(run: RunDetails) -> Reply:
    document = {**run_row(run), "attempts": msgspec.to_builtins(run.attempts)}
    if run.state == "succeeded":
        name = f"{run.model}:{run.version}"
        return Reply(document, (f"{name} is trained and evaluated",), next_step(run))
    if run.error is not None:
        step = run.error.next.replace("RUN", run.id) or f"interlock jobs logs {run.id}"
        raise class_of(run.error.code)(run.error.message, next=step)
    return Reply(document, (f"run {run.id} was {run.state}",), next_step(run), failed=True)


def _dry_run(session: Flags, spec: RunSpec) -> Reply:
    """The recipe on a sample, in this process; nothing is registered."""
    from interlock.cli.evidence import evidence  # scipy and scikit-learn: a second that only this needs
    from interlock.training.pipeline import dry_run

    report = dry_run(session.project, spec, session.progress)
    return Reply({"report": msgspec.to_builtins(report)}, evidence(report), "interlock train --wait")
