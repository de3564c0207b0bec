"""`interlock experiment`: start one with a frozen policy, look at any time, and let a person decide."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from interlock.cli.identity import As, acting
from interlock.cli.output import Columns, Reply
from interlock.cli.session import Flags, Session
from interlock.core.assignment import share
from interlock.core.clock import SystemClock
from interlock.core.errors import Conflict, Usage
from interlock.core.ids import uuid7_text
from interlock.core.project import Project
from interlock.experiments import records
from interlock.experiments.analysis import Analysis, MetricResult, analyse, check_metrics
from interlock.experiments.phases import Phase, phases_of
from interlock.experiments.records import Choice, Experiment
from interlock.experiments.samples import ALPHA
from interlock.registry.routes import CHAMPION, RouteDocument, RouteStore
from interlock.release import audit
from interlock.release.keys import Keys, prove
from interlock.release.obeyed import wait_until_obeyed
from interlock.release.roles import require_role
from interlock.release.rollout import Rollout
from interlock.release.users import trust_of
from interlock.store.database import Database
from interlock.warehouse.ducklake import open_warehouse

Keep = Annotated[bool, Parameter(help="decide: the champion stays.")]
Ship = Annotated[bool, Parameter(help="decide: the challenger is to become champion.")]
Stop = Annotated[bool, Parameter(help="decide: end it without an answer.")]


def experiment(
    endpoint: str,
    action: Literal["start", "show", "decide"] = "show",
    /,
    *,
    session: Session,
    arm: str = "",
    keep: Keep = False,
    ship: Ship = False,
    stop: Stop = False,
    reason: str = "",
    no_wait: bool = False,
    as_: As = None,
) -> Reply:
    """Compare a challenger with the champion on live traffic.

    Args:
        endpoint: The endpoint.
        action: start freezes the policy of interlock.toml and shuffles the units anew; show may be asked at any time.
        arm: The challenger; may be left out when there is only one.
        reason: decide: why; goes into the record and the audit trail.
        no_wait: start: do not wait until the gateways obey.
    """
    project = session.project
    if action == "start":
        return _start(session, project, endpoint, acting(as_), reason, no_wait=no_wait)
    database = Database(project.database)
    found = records.latest(database, endpoint)
    if action == "show":
        return _shown(found, found.read_result() if found.decision else _analysis(project, found, arm))
    wanted: dict[Choice, bool] = {"keep": keep, "ship": ship, "stop": stop}
    choices = [choice for choice, asked in wanted.items() if asked]
    if len(choices) != 1 or not reason.strip():
        raise Usage(
            "a decision is one of --keep, --ship and --stop, with a reason",
            next=f"interlock experiment {endpoint} decide --keep --reason R --as NAME",
        )
    who, trust = acting(as_), trust_of(project)
    require_role(trust, who, "decide experiments")
    prove(who, trust, Keys.find())
    result = None if stop else _analysis(project, found, arm)  # what cannot be analysed can still be stopped
    with audit.transaction(database) as connection:
        found = records.decide(connection, found, choices[0], who, reason, result, SystemClock().now())
        said = {"experiment": found.id, "decision": found.decision, "verdict": result.verdict if result else None}
        audit.append(connection, who, "experiment decide", endpoint, None, said, reason)
    return _shown(found, result)


def _start(session: Flags, project: Project, endpoint: str, who: str, reason: str, *, no_wait: bool) -> Reply:
    policy = records.policy_of(project.settings().experiment)
    rollout = Rollout(project, who, Keys.find())
    route = rollout.routes.read(endpoint, rollout.trust)
    if not any(arm.ranges for arm in route.arms if arm.name != CHAMPION):
        raise Conflict(
            f"no challenger of {endpoint} gets any units, so there is nothing to compare",
            next=f"interlock deploy MODEL:V --to {endpoint} --as challenger --weight 10%",
        )
    records.check_none_runs(rollout.database, endpoint)
    with closing(open_warehouse(project.warehouse, read_only=True)) as warehouse:
        check_metrics(warehouse, endpoint, policy)
    identity, (_, policy_digest) = uuid7_text(), records.freeze(policy)
    why = f"policy {policy_digest}" + (f": {reason}" if reason else "")
    outcome = rollout.set_experiment(endpoint, identity, why)
    with rollout.database.write() as connection:
        found = records.start(connection, identity, endpoint, policy, who, SystemClock().now())
    gateways = 0 if no_wait else len(wait_until_obeyed(project, outcome.route))
    return Reply(
        {**_head(found), "revision": outcome.route.revision, "gateways": gateways},
        (
            f"experiment {identity} at {endpoint}, revision {outcome.route.revision}, obeyed by {gateways} gateway(s)",
            f"policy {found.policy_digest}, frozen: "
            + ", ".join(f"{one.name} ({one.role}, {one.direction} is better)" for one in policy.metrics),
            "units are shuffled anew and keep their arm from now on; look as often as you like",
        ),
        f"interlock experiment {endpoint}",
    )


def _analysis(project: Project, found: Experiment, arm: str) -> Analysis:
    """What the log says now.

    Raises:
        Conflict: the experiment's route was never written.
    """
    trust, store = trust_of(project), RouteStore(project.routes)
    revisions = range(1, store.current(found.endpoint) + 1)
    routes: list[RouteDocument] = [store.read(found.endpoint, trust, revision, past=True) for revision in revisions]
    phases = phases_of(routes, found.id)
    if not phases:
        raise Conflict(
            f"no route of {found.endpoint} names experiment {found.id}: its start was interrupted",
            next=f"interlock experiment {found.endpoint} start --as NAME",
        )
    policy, arm = found.read_policy(), arm or _only(phases)
    with closing(open_warehouse(project.warehouse, read_only=True)) as warehouse:
        return analyse(warehouse, found.endpoint, found.id, policy, phases, arm)


def _only(phases: list[Phase]) -> str:
    names = {arm.name for phase in phases for arm in phase.arms if arm.name != CHAMPION and share(arm.ranges)}
    if len(names) != 1:
        raise Usage(f"there are several challengers: {', '.join(sorted(names))}", next="name one: --arm challenger")
    return names.pop()


def _head(found: Experiment) -> dict[str, Any]:
    document = msgspec.to_builtins(found)
    del document["result"]
    return {**document, "policy": msgspec.json.decode(found.policy)}


def _shown(found: Experiment, result: Analysis | None) -> Reply:
    text: list[str | Columns] = [
        f"experiment {found.id} at {found.endpoint}, started {found.started_at[:16]} by {found.started_by}",
        *([] if result is None else _numbers(result)),
    ]
    if found.decision:
        text.append(
            f"decision       {found.decision}, by {found.decided_by} on {str(found.decided_at)[:16]}: {found.reason}"
        )
    return Reply({**_head(found), **(msgspec.to_builtins(result) if result else {})}, text, _next(found, result))


def _numbers(result: Analysis) -> list[str | Columns]:
    """The analysis for people."""
    metrics = [
        {
            "metric": one.name,
            "role": one.role,
            "champion": one.champion,
            "challenger": one.challenger,
            "difference": in_words(one),
            "state": one.state,
            "units": f"{one.n_champion} + {one.n_challenger}",
        }
        for one in result.metrics
    ]
    exposures = [{**msgspec.to_builtins(one), "share": f"{one.share:.1%}"} for one in result.exposures]
    needed = [] if result.units_needed is None else [f"about {result.units_needed} more units are needed"]
    return [
        Columns(exposures, ("phase", "arm", "version", "share", "units", "moved")),
        Columns(metrics, ("metric", "role", "champion", "challenger", "difference", "state", "units")),
        f"sample ratio   {'as promised' if result.srm_p >= ALPHA else 'MISMATCH'} (p = {result.srm_p:.3g}); "
        f"{result.several_arms} units in several arms, {result.moved} left out because they were moved",
        f"verdict        {result.verdict}",
        *(f"               {reason}" for reason in (*result.reasons, *needed)),
    ]


def in_words(one: MetricResult) -> str:
    """The relative difference and its interval, as people say it."""
    if one.relative is None or one.relative_low is None or one.relative_high is None:
        return "not defined yet"
    return f"{_percent(one.relative)} ({_percent(one.relative_low)} to {_percent(one.relative_high)})"


def _percent(value: float) -> str:
    return f"{abs(value):.2%} {'higher' if value > 0 else 'lower'}"


def _next(found: Experiment, result: Analysis | None) -> str:
    """The command that a person would type now; nothing ships by itself."""
    endpoint = found.endpoint
    if result is None:
        return f"interlock retire {endpoint} --as NAME"
    match found.decision:
        case "ship":
            return f"interlock promote {endpoint} {result.arm} --as NAME"
        case "keep" | "stop":
            return f"interlock retire {endpoint} {result.arm} --as NAME"
        case None:
            broken = "stop" if result.effect is not None else None  # else it only has no data yet
            choices = {"SHIP": "ship", "ROLLBACK": "keep", "INCONCLUSIVE": "keep", "INVALID": broken, "CONTINUE": None}
            choice = choices[result.verdict]
            decide = f"interlock experiment {endpoint} decide --{choice} --reason R --as NAME"
            return decide if choice else f"interlock experiment {endpoint}"
