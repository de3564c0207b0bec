"""`interlock register`: a model that was trained elsewhere becomes a version, judged as a trained one."""

from __future__ import annotations

from pathlib import Path

import msgspec

from interlock.cli.evidence import evidence
from interlock.cli.identity import As
from interlock.cli.output import Reply
from interlock.cli.session import Session
from interlock.cli.train import trusted_author
from interlock.cli.versions import origin_lines
from interlock.evaluation.report import decode
from interlock.registry import evaluations, mlflow
from interlock.store.database import Database
from interlock.training import foreign


def register(source: str, /, *, session: Session, as_: As = None) -> Reply:
    """Take a model that was trained elsewhere: prove, evaluate and register it like a trained one.

    Args:
        source: A directory of interlock.save, or mlflow:models:/NAME/VERSION, mlflow:models:/NAME@ALIAS, mlflow:runs:/RUN/NAME.
    """
    project = session.project
    author, model = trusted_author(project, as_), project.settings().model
    if source.startswith("mlflow:"):
        found = foreign.read_mlflow(mlflow.find(source), source, model)
    else:
        found = foreign.read_saved(Path(source), source, model)
    version = foreign.register(project, found, author, session.progress)
    stored = evaluations.latest(Database(project.database), version.package_digest)
    report = decode(stored.report)
    return Reply(
        {
            **msgspec.to_builtins(version),
            "name": version.name,
            "label": version.label,
            "origin": msgspec.to_builtins(found.origin),
            "evaluation": stored.digest,
            "report": msgspec.to_builtins(report),
        },
        (f"{version.name}  {version.label}  by {author}", *origin_lines(found.origin), "", *evidence(report)),
        f"interlock review {version.name}",
    )
