"""`interlock rules`: look at the rules of an endpoint, add and remove them, and try them on what was logged."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from interlock.cli.identity import As, acting
from interlock.cli.log import log_of
from interlock.cli.output import Columns, Reply, items
from interlock.cli.release import Emergency, Evidence
from interlock.cli.session import Session
from interlock.cli.sign import told
from interlock.core.clock import SystemClock
from interlock.core.errors import Usage
from interlock.model.package import read_manifest
from interlock.registry.packages import PackageStore
from interlock.registry.routes import CHAMPION, RouteDocument, RouteStore, Rule
from interlock.release import rules as release
from interlock.release.changes import Terms
from interlock.release.keys import Keys
from interlock.release.obeyed import wait_until_obeyed
from interlock.release.rollout import Rollout
from interlock.release.trial import Tried, try_rules
from interlock.release.users import trust_of

MOST = 1_000_000
Then = Annotated[Literal["refuse", "answer", "use", "fallback", ""], Parameter(help="What happens where it holds.")]


def rules(
    endpoint: str,
    action: Literal["list", "add", "remove", "test"] = "list",
    name: str = "",
    /,
    *,
    session: Session,
    when: str = "",
    then: Then = "",
    reason: str = "",
    output: str = "",
    arm: str = "",
    last: int = 10_000,
    diff: Evidence = "",
    override: Emergency = "",
    no_wait: bool = False,
    as_: As = None,
) -> Reply:
    """Let conditions over inputs, unit and time decide before the model: list, add, remove, test.

    Args:
        endpoint: The endpoint.
        action: test tries the rules in force, or the one given by --when and --then, on logged requests.
        name: The rule.
        when: A condition in CEL, as in: input.distance > 2000.0 && unit.startsWith("N")
        reason: What a refused client reads; goes into the signed document and the audit trail.
        output: answer: a JSON object of the model's outputs.
        arm: use: the arm that answers.
        last: test: so many requests, the newest ones.
        no_wait: Do not wait until the gateways obey.
    """
    project = session.project
    if action in ("add", "remove"):
        rollout, terms = Rollout(project, acting(as_), Keys.find()), Terms(diff, override)
        if action == "add":
            outcome = rollout.add_rule(endpoint, _rule(name, when, then, reason, output, arm), reason, terms)
        else:
            outcome = rollout.remove_rule(endpoint, name, reason, terms)
        if outcome.proposal is not None:
            return told(outcome.proposal)
        gateways = 0 if no_wait else len(wait_until_obeyed(project, outcome.route))
        said = f"revision {outcome.route.revision}, signed; {gateways} gateway(s) are known to obey"
        document = {"endpoint": endpoint, "revision": outcome.route.revision, "gateways": gateways}
        document |= {"risk": outcome.route.risk, "diff": outcome.route.diff, "proposal": None}
        step = f"interlock rules {endpoint} test"
        return Reply({**document, "rules": msgspec.to_builtins(outcome.route.rules)}, (said,), step)
    route = RouteStore(project.routes).read(endpoint, trust_of(project)).at(SystemClock().now())
    packages = PackageStore(project.packages)
    if action == "list":
        step = f"interlock rules {endpoint} test" if route.rules else "interlock rules --help shows how to add one"
        return items(msgspec.to_builtins(route.rules), Rule.__struct_fields__, empty="no rules", next=step)
    if not 1 <= last <= MOST:
        raise Usage(f"--last {last}: from 1 to {MOST}")
    if when:
        rule = _rule(name or "new", when, then, reason or "a trial", output, arm)
        release.check_rule(rule, route, packages)
        route = release.added(route, rule)
    digest = route.arm(CHAMPION).package_digest
    signature = read_manifest(packages.find(digest), digest).signature
    requests, tried = try_rules(log_of(project, endpoint), route, signature, last)
    return _told(route, requests, tried, alone=bool(when))


def _rule(name: str, when: str, then: str, reason: str, output: str, arm: str) -> Rule:
    try:
        fixed = msgspec.json.decode(output, type=dict[str, Any]) if output else None
    except msgspec.DecodeError as error:
        raise Usage(f"--output is no JSON object: {error}", next="""as in: --output '{"score": 0.1}'""") from None
    return release.make_rule(name=name, when=when, then=then, reason=reason, output=fixed, arm=arm)


def _told(route: RouteDocument, requests: int, tried: list[Tried], *, alone: bool) -> Reply:
    rows = msgspec.to_builtins(tried)
    changed = sum(one.changed for one in (tried[-1:] if alone else tried))
    notes = [f"{one.rule} never held" for one in tried if not one.matched]
    notes += [f"{one.rule} is shadowed: {one.shadowed_by} holds wherever it does" for one in tried if one.shadowed_by]
    said = f"would have changed {changed:,} of {requests:,} answers".replace(",", " ")
    return Reply(
        {"endpoint": route.endpoint, "requests": requests, "changed": changed, "rules": rows},
        (Columns(rows, Tried.__struct_fields__), *notes, said),
        f"interlock rules {route.endpoint}",
    )
