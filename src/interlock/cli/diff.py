"""`interlock diff`: a pull request for decisions. Logged requests through two sides, and what would change."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from interlock.cli.identity import somebody
from interlock.cli.log import log_of
from interlock.cli.moments import moment
from interlock.cli.output import Columns, Part, Reply
from interlock.cli.session import Flags, Session
from interlock.core.clock import SystemClock, iso
from interlock.core.errors import NotFound, Usage
from interlock.core.files import write_atomic
from interlock.evaluation import diff_views as views
from interlock.evaluation.diff import Diff, encode
from interlock.evaluation.differ import Question
from interlock.evaluation.differ import diff as replay
from interlock.evaluation.logged import Span
from interlock.evaluation.sides import OBEYED, Setup
from interlock.evaluation.subjects import endpoint_of, registered
from interlock.model.conditions import Conditions
from interlock.model.fixed import check_fixed
from interlock.model.signature import Signature
from interlock.registry import evidence
from interlock.registry.packages import PackageStore
from interlock.registry.routes import RouteDocument, Rule
from interlock.registry.versions import Versions
from interlock.release import audit
from interlock.release.parameters import changed_parameters, check_parameters
from interlock.release.rules import make_rule, removed
from interlock.release.users import trust_of
from interlock.store.database import Database

Changes = Annotated[list[str], Parameter(name="--params", consume_multiple=True, negative=())]
Columns_ = Annotated[list[str], Parameter(name="--slice", consume_multiple=True, negative=())]
Then = Literal["refuse", "answer", "use", "fallback"]
TELL_SECONDS = 2.0


def diff(
    before: str,
    after: str = "",
    /,
    *,
    session: Session,
    params: Changes = [],  # noqa: B006 - never written to
    rule: Path | None = None,
    without: str = "",
    then: Then = "refuse",
    output: str = "",
    arm: str = "",
    endpoint: str = "",
    since: str = "",
    until: str = "",
    last: int | None = None,
    slices: Columns_ = [],  # noqa: B006
    value: str = "",
    tolerance: float | None = None,
    html: Path | None = None,
    markdown: bool = False,
) -> Reply:
    """Replay logged requests through two sides, and show which would be decided otherwise.

    Args:
        before: MODEL:V under the parameters and rules in force.
        after: MODEL:V to compare with; left out: the same version under --params or --rule.
        params: NAME=VALUE that hold for the second side only.
        rule: A file with a condition in CEL: a rule of the second side, named as the file; one of that name in force is replaced.
        without: A rule in force that the second side has not.
        then: What happens where the rule holds: refuse, answer, use or fallback.
        output: answer: a JSON object of the model's outputs.
        arm: use: the arm that answers.
        endpoint: Whose log (default: the endpoint that serves the model).
        since: Event time from: ISO with an offset, or how long ago: 30s, 15m, 1h, 2d.
        until: Event time before.
        last: Only so many requests, the newest ones.
        slices: Raw inputs whose values are looked at one by one (default: as evaluation chooses them).
        value: What a decision is worth: a raw input that is a number, or an outcome of the feedback.
        tolerance: Regression: how far values may be apart, relatively (default: the manifest's).
        html: Write the page to this file.
        markdown: Print Markdown, for the comment of a pull request.
    """
    project = session.project
    database, trust = Database(project.database), trust_of(project)
    versions = Versions(database, PackageStore(project.packages))
    first = registered(versions, before)
    second = registered(versions, after) if after else first
    if last is not None and last < 1:
        raise Usage(f"--last {last}: at least 1")
    if not (after or params or rule or without):
        raise Usage("there is nothing to compare", next=f"interlock diff {before} MODEL:V, or --params THRESHOLD=0.4")
    model = first.subject.model
    route = endpoint_of(project, model, endpoint)
    if route is None:
        raise NotFound(f"no endpoint serves {model}", next=f"interlock deploy {model}:V --to {model} --as champion")
    arms = {one.name: one.package_digest for one in route.arms}
    changed = _parameters(route, params, second.package.manifest.signature)
    route_rules = removed(route, without).rules if without else route.rules
    rules = _rules(route_rules, rule, then, output, arm, second.package.manifest.signature)
    sides = (Setup(first, route.parameters, route.rules, arms), Setup(second, changed, rules, arms))
    span = Span(moment("--since", since) if since else None, moment("--until", until) if until else None, last)
    question = Question(span, tuple(slices), value, tolerance)
    found = replay(project, log_of(project, route.endpoint), route, trust, sides, question, _progress(session))
    packages = [one.subject.package_digest for one in (found.after, found.before)]
    with audit.transaction(database) as connection:
        now, who = iso(SystemClock().now()), somebody(None)
        digest = evidence.store(connection, "diff", encode(found), packages[0], packages[1], now, who)
        said = {"digest": digest, "before": found.before.subject.name}
        audit.append(connection, who, "diff", found.after.subject.name, None, said)
    if html is not None:
        write_atomic(html, views.html(found, digest).encode())
    document = {"digest": digest, "diff": msgspec.to_builtins(found)}
    if markdown:
        return Reply(document, (views.markdown(found, digest),))
    return Reply(document, told(found, digest), _sign(route, sides, digest, params))


def told(found: Diff, digest: str) -> list[Part]:
    """The diff for a terminal; what could not be replayed comes first."""
    parts: list[Part] = [*views.warnings(found), views.headline(found)]
    for one in views.sections(found):
        parts += ["", one.title + (f": {one.note}" if one.note else ""), Columns(one.rows, one.columns)]
    return [*parts, "", f"kept as diff {digest}"]


def _parameters(route: RouteDocument, params: list[str], signature: Signature) -> Any:
    changes = dict(one.partition("=")[::2] for one in params)
    unknown = sorted(changes.keys() - set(OBEYED))
    if unknown:
        raise Usage(f"a replay cannot show what {', '.join(unknown)} changes; of --params it obeys {', '.join(OBEYED)}")
    changed = changed_parameters(route.parameters, changes)
    check_parameters(changed, signature, route.names())
    return changed


def _rules(
    rules: tuple[Rule, ...], file: Path | None, then: Then, output: str, arm: str, signature: Signature
) -> tuple[Rule, ...]:
    """The rules in force with that of the file, in the place of its name or behind the others."""
    if file is None:
        return rules
    name = re.sub(r"[^a-z0-9]+", "-", file.stem.lower()).strip("-")
    try:
        condition = file.read_text(encoding="utf-8").strip()
        fixed = msgspec.json.decode(output, type=dict[str, Any]) if output else None
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise Usage(f"--rule {file}: {error}", next="a file with a condition, as in: input.distance > 2000.0") from None
    made = make_rule(name=name, when=condition, then=then, reason="a trial", output=fixed, arm=arm)
    Conditions([made.when], signature)
    if fixed is not None:
        check_fixed("--output", fixed, signature, whole=False)
    there = [one.name for one in rules]
    return tuple(made if one.name == name else one for one in rules) + (() if name in there else (made,))


def _progress(session: Flags) -> Any:
    began = told = time.monotonic()

    def say(done: int, rows: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= TELL_SECONDS:
            told = now
            session.progress(f"{done:,} of {rows:,} rows, {done / (now - began):,.0f} a second")

    return say


def _sign(route: RouteDocument, sides: tuple[Setup, Setup], digest: str, params: list[str]) -> str:
    """How somebody answers for what they saw: an approval or a revision of the route names the diff."""
    before, after = sides
    why = f"--diff {digest} --as NAME --reason REASON"
    steps = []
    if after.package != before.package:
        steps = [
            f"interlock review {after.candidate.subject.name}",
            f"interlock approve {after.candidate.subject.name} --diff {digest} --as NAME --reason REASON",
        ]
    if params:
        steps.append(f"interlock params {route.endpoint} {' '.join(params)} {why}")
    for rule in after.rules:
        if rule not in before.rules:
            steps.append(f"interlock rules {route.endpoint} add {rule.name} --when … --then {rule.then} {why}")
    gone = {rule.name for rule in before.rules} - {rule.name for rule in after.rules}
    steps += [f"interlock rules {route.endpoint} remove {name} {why}" for name in sorted(gone)]
    return "\n".join(steps)
