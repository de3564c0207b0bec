"""`interlock jobs`: runs of training, whoever or whatever began them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from interlock.cli.identity import As, somebody
from interlock.cli.output import Columns, Reply, cell
from interlock.cli.session import Flags, Session
from interlock.core.clock import parse_time
from interlock.jobs.client import Jobs, RunDetails
from interlock.jobs.records import Attempt, Run
from interlock.release import audit
from interlock.store.database import Database


def list_jobs(*, session: Session, last: int = 20) -> Reply:
    """List runs, the newest first.

    Args:
        last: How many.
    """
    rows = [run_row(run) for run in jobs_of(session).list(last)]
    columns = ("id", "model", "state", "version", "author", "schedule", "created_at", "error")
    shown = [{**row, "error": row["error"] and row["error"]["message"]} for row in rows]
    return Reply(
        {"items": rows}, (Columns(shown, columns),) if rows else ("no runs yet",), "" if rows else "interlock train"
    )


def show(run: str, /, *, session: Session) -> Reply:
    """Show one run and every attempt of its steps.

    Args:
        run: The run's id.
    """
    found = jobs_of(session).show(run)
    about = [f"{name:<12}{cell(value)}" for name, value in run_row(found).items() if isinstance(value, str | int)]
    spec = msgspec.json.encode(found.spec).decode()
    attempts = [_attempt_row(one) for one in found.attempts]
    judged = found.validation or {"findings": []}
    said = [f"validation  {one['verdict']}: {one['text']}" for one in judged["findings"]]
    if found.validation and not said:
        said = [f"validation  nothing found in {judged['rows']} rows"]
    failed = [f"error       {found.error.message}"] if found.error else []
    return Reply(
        {**run_row(found), "attempts": attempts, "validation": found.validation},
        (
            *(*about, f"spec        {spec}", *said, *failed),
            Columns(attempts, ("name", "attempt", "state", "seconds", "peak_mb", "log")),
        ),
        next_step(found),
    )


def logs(run: str, step: str = "", /, *, session: Session, follow: bool = False) -> Reply | None:
    """Print what the steps of a run wrote.

    Args:
        run: The run's id.
        step: Only this step's.
        follow: Go on until the run has ended.
    """
    texts = jobs_of(session).log(run, step, follow=follow)
    if session.json:
        return Reply({"run_id": run, "text": "".join(texts)})
    for text in texts:
        print(text, end="", flush=True)
    return None


def cancel(run: str, /, *, session: Session) -> Reply:
    """Call a run off; its step is killed.

    Args:
        run: The run's id.
    """
    jobs = jobs_of(session)
    before = jobs.show(run)
    jobs.cancel(run)
    _remember(session, "job cancel", somebody(None), before, jobs.show(run))
    return Reply(run_row(jobs.show(run)), (f"run {run} is cancelled",), f"interlock jobs retry {run}")


def retry(
    run: str, /, *, session: Session, from_: Annotated[str, Parameter(name="--from")] = "", as_: As = None
) -> Reply:
    """Queue a failed or cancelled run again, from the step where it ended, or from any step that it has begun.

    Somebody else's run goes on as a new run by who acts: what it makes is theirs, since the recipe may have changed.

    Args:
        run: The run's id.
        from_: Do this step and those after it again; of a run that succeeded, as a new run.
    """
    from interlock.cli.train import trusted_author  # which imports this module

    jobs = jobs_of(session)
    author, before = trusted_author(session.project, as_), jobs.show(run)
    queued = jobs.retry(run, author, from_)
    _remember(session, "job retry", author, before, jobs.show(queued))
    said = (
        f"run {run} is queued again" if queued == run else f"run {queued} is queued; its first steps are those of {run}"
    )
    return Reply(run_row(jobs.show(queued)), (said,), f"interlock jobs logs {queued} --follow")


def _remember(session: Flags, action: str, who: str, before: RunDetails, after: RunDetails) -> None:
    was, now = ({"run": one.id, "state": one.state} for one in (before, after))
    audit.append(Database(session.project.database), who, action, after.model, was, now)


def jobs_of(session: Flags) -> Jobs:
    """The runs of the project."""
    project = session.project
    return Jobs(project, Database(project.database))


def run_row(run: Run) -> dict[str, Any]:
    """A run as its columns."""
    names = Run.__struct_fields__
    return {name: value for name, value in msgspec.to_builtins(run).items() if name in names}


def next_step(run: RunDetails) -> str:
    """What a person does after looking at the run."""
    if run.state == "succeeded":
        return f"interlock review {run.model}:{run.version}"
    if run.state in ("failed", "cancelled"):
        return f"interlock jobs logs {run.id}\ninterlock jobs retry {run.id}"
    return f"interlock jobs logs {run.id} --follow"


def seconds(attempt: Attempt) -> float | None:
    """How long it took; None while it runs."""
    if attempt.ended_at is None:
        return None
    return (parse_time(attempt.ended_at) - parse_time(attempt.started_at)).total_seconds()


def _attempt_row(attempt: Attempt) -> dict[str, Any]:
    return {**msgspec.to_builtins(attempt), "seconds": seconds(attempt)}
