"""`interlock as-of`: what an endpoint was at some moment."""

from __future__ import annotations

import msgspec

from interlock.cli.moments import moment
from interlock.cli.output import Columns, Part, Reply, cell
from interlock.cli.session import Session
from interlock.core.clock import parse_time
from interlock.core.errors import NotFound
from interlock.registry.routes import RouteStore
from interlock.release import asof
from interlock.release.asof import State
from interlock.release.users import trust_of
from interlock.store.database import Database


def as_of(time: str, endpoint: str = "", /, *, session: Session) -> Reply:
    """Tell the complete state of an endpoint at a moment: who served, under which parameters, rules and signatures.

    Args:
        time: ISO with an offset, or how long ago: 30s, 15m, 1h, 2d.
        endpoint: Only this one (default: all that there were).
    """
    project, at = session.project, parse_time(moment("TIME", time))
    database, store, trust = Database(project.database), RouteStore(project.routes), trust_of(project)
    names = [endpoint] if endpoint else store.endpoints()
    there = [name for name in names if endpoint or parse_time(store.read(name, trust, 1, past=True).time) <= at]
    if not there:
        raise NotFound(f"there was no endpoint at {time}", next="see when the first was made: interlock audit")
    states = [asof.as_of(project, database, name, at) for name in there]
    return Reply({"items": msgspec.to_builtins(states)}, [part for state in states for part in _text(state)])


def _text(state: State) -> list[Part]:
    changed = ", ".join(f"{name}={cell(value)}" for name, value in msgspec.to_builtins(state.parameters).items())
    running = f"{state.experiment.id or 'none'}, phase {state.experiment.phase}"
    policy = state.policy or {}
    decided = f"; decided {policy['decision']} by {policy['decided_by']}" if policy.get("decision") else ""
    started = f", started by {policy['started_by']} on {policy['started_at']}{decided}" if policy else ""
    served = [
        {
            **{name: getattr(one, name) for name in ("arm", "version", "label", "percent", "why")},
            "approved": one.approved,
        }
        for one in state.served
    ]
    judged = [
        {"package": one.package_digest[:19], **msgspec.to_builtins(said)}
        for one in state.served
        for said in one.decisions
    ]
    return [
        f"{state.endpoint} at {state.at}",
        f"route       revision {state.revision} by {state.author}, {state.time} {state.reason}".rstrip(),
        f"signed by   {', '.join(state.signed_by)}: class {state.risk or 'low'}, diff {state.diff or 'none'}",
        *([f"override    until {state.override}"] if state.override else []),
        Columns(served, ("arm", "version", "label", "percent", "approved", "why")),
        Columns(
            judged, ("package", "decision", "scope", "approver", "time", "evaluation", "standard", "expires", "reason")
        ),
        f"parameters  {changed}",
        "pinned      not known: what a gateway's environment pins is known only while it runs",
        *(f"rule        {one.name}: {one.then} when {one.when}" for one in state.rules),
        f"experiment  {running}{started}",
        *(f"key         {key.name} of {key.owner} ({', '.join(key.roles)})" for key in state.keys),
        *(f"alert       {one.monitor} {one.slice} {one.state or 'open'} since {one.since}" for one in state.alerts),
        "",
    ]
