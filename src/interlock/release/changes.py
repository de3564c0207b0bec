"""Changes of parameters and rules are releases too: what is free, the class of the rest, and the signatures it waits for.

A change that only takes answers away is free: one operator signs it, and it holds within a second. So is the way back to what
the endpoint held before. All else has the class of its decision diff, where the policy asks for more than one operator; until
enough have signed it, it is a proposal (`release.proposals`).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from interlock.core.clock import iso, parse_time
from interlock.core.errors import Refused
from interlock.core.policy import Policy, Risk, highest
from interlock.core.trust import TrustRoot
from interlock.registry.routes import CHAMPION, Arm, Override, RouteDocument, RouteStore, Rule

if TYPE_CHECKING:
    from interlock.evaluation.diff import Diff
    from interlock.registry.evidence import Evidence

FREE: dict[str, tuple[Any, ...] | None] = {
    "TIMEOUT_SECOND": None, "RETRY": None, "MAX_CONCURRENCY": None, "LOG_INPUTS": None,
    "ACTIVATE": (False,), "ON_REVOKED": ("fallback",), "ON_EXPIRY": ("stop",),
    "THRESHOLD": (), "FALLBACK": (), "ACTIVE_MODEL": (),
}  # fmt: skip
"""Every parameter, and the values to which it changes freely; None: any, for it decides nothing."""
FREE_RULES = ("refuse", "fallback")
"""What a rule may do that is added freely: behind the others it only takes answers away."""
REPLAYED = ("ACTIVATE", "THRESHOLD", "FALLBACK")
"""Parameters whose effect a diff shows; that of ACTIVE_MODEL it shows as another version."""
MIN_ROWS = 100
"""Rows that a slice must have to count."""
replace = msgspec.structs.replace


class Terms(msgspec.Struct, frozen=True):
    """On what a change rests."""

    diff: str = ""
    """Digest of the decision diff of exactly this change."""
    override: str = ""
    """Why this goes past the quorum, for as long as the policy allows."""


PLAIN = Terms()


def tightens(before: RouteDocument, after: RouteDocument) -> bool:
    """Whether no request can be answered by a model otherwise than before: models answer fewer, or nothing else changes."""
    old, new = (msgspec.to_builtins(route.parameters) for route in (before, after))
    for name in (name for name in new if new[name] != old[name]):
        to = FREE[name]
        if to is not None and new[name] not in to:
            return False
    there = len(before.rules)
    return after.rules[:there] == before.rules and all(rule.then in FREE_RULES for rule in after.rules[there:])


def reviewed(store: RouteStore, trust: TrustRoot, route: RouteDocument) -> RouteDocument:
    """Where a step from `route` starts: without an override, and without a change of a revision that lacks signatures."""
    for one in _revisions(store, trust, route):
        if ((one.risk or "low") == "low" and one.override is None) or store.holds(one, trust):
            return replace(route, parameters=one.reviewed.parameters, rules=one.reviewed.rules)
    return route


def judged(
    store: RouteStore, trust: TrustRoot, before: RouteDocument, after: RouteDocument, diff: Evidence | None
) -> RouteDocument:
    """`after`, the next revision, with its class and its diff.

    Raises:
        Refused: it takes a diff, or this one is of another change.
    """
    found = _read(before, after, diff) if diff else None
    after = replace(after, diff=diff.digest if diff else None)
    gated = trust.policy.judges_changes(*after.subjects)
    if not (gated or found) or tightens(before, after):
        return after
    held = (one.reviewed for one in _revisions(store, trust, before) if store.holds(one, trust))
    if any(_named(one) == _named(after) and tightens(one, after) for one in held):
        return after  # a way back
    shown = _side(before) != _side(after)
    if shown and found is None:
        raise Refused(
            f"this changes decisions at {after.endpoint}: the policy asks for a diff of it, which gives it its class",
            next=f"{_line(before, after)}; then the same again with --diff DIGEST",
        )
    old, new = (msgspec.to_builtins(route.parameters) for route in (before, after))
    unseen = any(old[name] != new[name] and new[name] not in (FREE[name] or ()) for name in ("ON_REVOKED", "ON_EXPIRY"))
    classes: list[Risk] = [class_of(found, trust.policy, after)] if shown and found else []
    return replace(after, risk=highest(*classes, "high" if unseen else "low"))


def class_of(diff: Diff, policy: Policy, route: RouteDocument) -> Risk:
    """The class of a change: by the most that the diff leaves possible, over all rows or in one slice of enough of them.

    That is the upper end of the interval of the changed share, and all rows that could not be replayed, or not rightly: a
    log that says little proves little.
    """
    unsupported, mismatch = diff.unsupported.share, diff.mismatch
    wrong = mismatch.differing / max(mismatch.compared, 1)
    most = unsupported + (1 - unsupported) * min(1.0, diff.changes.changed.high + wrong)
    slices = (one.share for one in diff.changes.slices if one.n >= MIN_ROWS)
    return policy.class_of(max([most, *slices]), *route.subjects)


def overridden(
    trust: TrustRoot, before: RouteDocument, base: RouteDocument, after: RouteDocument, now: datetime
) -> RouteDocument:
    """`after` as an emergency change of `before`, with whose override it ends where there is one. `base`: see `reviewed`.

    Raises:
        Refused: the policy allows none, or the one before has ended and nobody has looked at it since.
    """
    hours = trust.policy.limits_of(*after.subjects).override_hours
    if not hours:
        raise Refused(f"the policy allows no override at {after.endpoint}", next="see it: interlock users policy")
    until = now + timedelta(hours=hours)
    if before.override is not None:
        until = min(until, parse_time(before.override.until))
        if until <= now:
            raise Refused(
                f"the override of revision {before.revision} has ended, and nobody has reviewed it",
                next=f"make the change with a diff, or take it back: interlock params {after.endpoint} …",
            )
    return replace(after, override=Override(iso(until), base.parameters, base.rules))


def _revisions(store: RouteStore, trust: TrustRoot, newest: RouteDocument) -> Iterator[RouteDocument]:
    """All of them, from the newest back."""
    for number in range(newest.revision, 0, -1):
        yield store.read(newest.endpoint, trust, number, past=True)


def _read(before: RouteDocument, after: RouteDocument, kept: Evidence) -> Diff:
    """The diff, which must be of exactly this change."""
    from interlock.evaluation.diff import decode  # here: a kill switch does not wait for what only this needs

    if kept.kind != "diff":
        raise Refused(f"{kept.digest} is a {kept.kind}, and no diff", next=_line(before, after))
    diff = decode(kept.document)
    other = [f"endpoint {diff.endpoint}"] if diff.endpoint != after.endpoint else []
    for word, side, route in (("before", diff.before, before), ("after", diff.after, after)):
        said = (side.subject.package_digest, side.parameters, _bare(side.rules))
        parts = zip(("version", "parameters", "rules"), said, _side(route), strict=True)
        other += [f"{what} {word}" for what, theirs, ours in parts if theirs != ours]
    if other:
        raise Refused(
            f"diff {kept.digest} is of another change of {after.endpoint}: not the same {', '.join(other)}",
            next=f"{_line(before, after)}; then the same again with its digest",
        )
    return diff


def _side(route: RouteDocument) -> tuple[str, dict[str, Any], list[Rule]]:
    """What a diff can show of a route: who answers, parameters, rules."""
    values = msgspec.to_builtins(route.parameters)
    return _answers(route).package_digest, {name: values[name] for name in REPLAYED}, _bare(route.rules)


def _named(route: RouteDocument) -> list[str]:
    """The packages of the champion, and of the arms that parameters and rules name."""
    names = [CHAMPION, route.parameters.active_model, *(rule.arm for rule in route.rules)]
    return [arm.package_digest for name in names for arm in route.arms if arm.is_named(name)]


def _answers(route: RouteDocument) -> Arm:
    """The arm that ACTIVE_MODEL names, else the champion."""
    name = route.parameters.active_model
    return next((arm for arm in route.arms if name and arm.is_named(name)), None) or route.arm(CHAMPION)


def _bare(rules: Iterable[Rule]) -> list[Rule]:
    """Rules without what a refused client reads."""
    return [replace(rule, reason="") for rule in rules]


def _line(before: RouteDocument, after: RouteDocument) -> str:
    """The command that makes the diff of a change."""
    names = [f"{arm.model}:{arm.version}" for arm in map(_answers, (before, after))]
    words = ["interlock", "diff", *dict.fromkeys(names)]
    old, new = (_side(route)[1] for route in (before, after))
    changed = [name for name in new if new[name] != old[name]]
    texts = {name: new[name] if isinstance(new[name], str) else msgspec.json.encode(new[name]).decode() for name in new}
    words += ["--params", *(f"{name}={texts[name]}" for name in changed)] if changed else []
    first = ""
    for rule in after.rules:
        if rule not in before.rules:
            first = f"put the condition into {rule.name}.cel: "
            words += ["--rule", f"{rule.name}.cel", "--then", rule.then]
            words += ["--output", msgspec.json.encode(rule.output).decode()] if rule.output is not None else []
            words += ["--arm", rule.arm] if rule.arm else []
    words += [word for rule in before.rules if rule not in after.rules for word in ("--without", rule.name)]
    return first + shlex.join([*words, "--endpoint", after.endpoint])
