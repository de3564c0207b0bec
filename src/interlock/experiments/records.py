"""Experiments in the control database: the policy as it was frozen at the start, and what a person decided in the end."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, insert, select, update

from interlock.core.clock import iso
from interlock.core.errors import Conflict, Misconfigured, NotFound, Tampered
from interlock.core.hashing import canonical, digest
from interlock.core.settings import ExperimentSettings
from interlock.experiments.analysis import Analysis
from interlock.experiments.decision import Metric, Policy
from interlock.store.database import Database
from interlock.store.tables import experiments

Choice = Literal["keep", "ship", "stop"]
"""What a person decides: keep the champion, ship the challenger, or stop without an answer."""


class Experiment(msgspec.Struct, frozen=True):
    """One experiment; `policy` is canonical JSON and `policy_digest` its digest, `result` the analysis decided upon."""

    id: str
    endpoint: str
    policy: str
    policy_digest: str
    state: Literal["running", "decided"]
    started_at: str
    started_by: str
    decided_at: str | None
    decided_by: str | None
    decision: Choice | None
    reason: str | None
    result: str | None

    def read_policy(self) -> Policy:
        """The frozen policy.

        Raises:
            Tampered: it is not what was frozen.
        """
        if digest(self.policy.encode()) != self.policy_digest:
            raise Tampered(f"the policy of experiment {self.id} was altered", next="restore control.db from a backup")
        return msgspec.json.decode(self.policy, type=Policy)

    def read_result(self) -> Analysis | None:
        """The analysis that was decided upon; None while it runs, or if it was stopped."""
        return None if self.result is None else msgspec.json.decode(self.result, type=Analysis)


def policy_of(settings: ExperimentSettings) -> Policy:
    """The policy that `[experiment]` of interlock.toml says now.

    Raises:
        Misconfigured: nothing could be decided with it.
    """
    try:
        return Policy(
            metrics=tuple(
                Metric(**{name: getattr(one, name) for name in Metric.__struct_fields__}) for one in settings.metrics
            ),
            expected_units=settings.expected_units,
            alpha=settings.alpha,
            min_units=settings.min_units,
            minimum_runtime_s=settings.min_hours * 3600,
            maximum_runtime_s=settings.max_hours * 3600,
        )
    except ValueError as error:
        raise Misconfigured(
            f"[experiment] in interlock.toml: {error}",
            next="add a [[experiment.metrics]] as in docs/reference/experiments.md",
        ) from error


def check_none_runs(database: Database, endpoint: str) -> None:
    """Refuse to start a second one.

    Raises:
        Conflict: an experiment runs at this endpoint.
    """
    running = select(experiments.c.id).where(experiments.c.endpoint == endpoint, experiments.c.state == "running")
    with database.read() as connection:
        other = connection.scalar(running)
    if other is not None:
        raise Conflict(
            f"experiment {other} runs at {endpoint}",
            next=f"decide it first: interlock experiment {endpoint} decide --keep --reason R --as NAME",
        )


def freeze(policy: Policy) -> tuple[str, str]:
    """The policy as canonical JSON, and its digest."""
    text = canonical(policy)
    return text.decode(), digest(text)


def start(connection: Connection, experiment: str, endpoint: str, policy: Policy, by: str, at: datetime) -> Experiment:
    """Keep a new experiment with its frozen policy, in the caller's write transaction."""
    row = Experiment(
        experiment, endpoint, *freeze(policy), "running", iso(at), by, None, None, None, None, None
    )  # fmt: skip
    connection.execute(insert(experiments).values(msgspec.structs.asdict(row)))
    return row


def latest(database: Database, endpoint: str) -> Experiment:
    """The newest experiment of an endpoint.

    Raises:
        NotFound: there was none.
    """
    query = select(experiments).where(experiments.c.endpoint == endpoint).order_by(experiments.c.id.desc()).limit(1)
    with database.read() as connection:
        row: Any = connection.execute(query).first()
    if row is None:
        raise NotFound(f"no experiment at {endpoint} yet", next=f"interlock experiment {endpoint} start --as NAME")
    return Experiment(**row._mapping)


def decide(
    connection: Connection,
    experiment: Experiment,
    decision: Choice,
    by: str,
    reason: str,
    result: Analysis | None,
    at: datetime,
) -> Experiment:
    """Keep a person's decision with the analysis it rests on, in the caller's write transaction.

    Raises:
        Conflict: it is decided already.
    """
    decided = msgspec.structs.replace(
        experiment,
        state="decided",
        decided_at=iso(at),
        decided_by=by,
        decision=decision,
        reason=reason,
        result=None if result is None else canonical(result).decode(),
    )
    running = (experiments.c.id == experiment.id) & (experiments.c.state == "running")
    if connection.execute(update(experiments).where(running).values(msgspec.structs.asdict(decided))).rowcount == 0:
        raise Conflict(
            f"experiment {experiment.id} is decided already", next=f"interlock experiment {experiment.endpoint}"
        )
    return decided
