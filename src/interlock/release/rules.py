"""Rules as a person adds and removes them: whether they fit every arm, and whether they are quick enough to be asked always."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from interlock.core.errors import Conflict, NotFound, Usage
from interlock.model.fixed import check_fixed
from interlock.model.package import read_manifest, verify
from interlock.registry.packages import PackageStore
from interlock.registry.routes import RULES, RouteDocument, Rule

SECONDS = 0.001
"""For so long a rule may look at one row."""
NEEDS = {"refuse": "reason", "answer": "output", "use": "arm", "fallback": "name"}
replace = msgspec.structs.replace


def make_rule(**values: Any) -> Rule:
    """A rule of these values.

    Raises:
        Usage: a value has not its form, or is missing or too much for this `then`.
    """
    try:
        rule = msgspec.convert(values, Rule)
    except msgspec.ValidationError as error:
        raise Usage(f"this is no rule: {error}", next="interlock rules --help shows one") from None
    needed = NEEDS[rule.then]
    if not getattr(rule, needed) or any(getattr(rule, name) for name in {"output", "arm"} - {needed}):
        raise Usage(f"of --output and --arm, {rule.then} takes what it needs: --{needed}")
    return rule


def added(route: RouteDocument, rule: Rule) -> RouteDocument:
    """The route with the rule behind the others.

    Raises:
        Conflict: there is one of that name, or as many as there may be.
    """
    if len(route.rules) == RULES or rule.name in (one.name for one in route.rules):
        raise Conflict(
            f"{route.endpoint} has a rule {rule.name} already, or {RULES}, which is as many as there may be",
            next=f"interlock rules {route.endpoint} remove {rule.name}; or choose another name",
        )
    return replace(route, rules=(*route.rules, rule))


def removed(route: RouteDocument, name: str) -> RouteDocument:
    """The route without the rule.

    Raises:
        NotFound: it has none of that name.
    """
    if name not in (rule.name for rule in route.rules):
        there = ", ".join(rule.name for rule in route.rules) or "none"
        raise NotFound(f"{route.endpoint} has no rule {name!r} (there: {there})")
    return replace(route, rules=tuple(rule for rule in route.rules if rule.name != name))


def check_rule(rule: Rule, route: RouteDocument, packages: PackageStore) -> None:
    """Hold a rule against all arms, for it may meet each.

    Raises:
        Usage: the condition does not fit one, the fixed answer is none that it could give, the arm or fallback is missing.
    """
    from interlock.model.conditions import Conditions  # here: most steps come without rules

    for arm in route.arms:
        signature = read_manifest(packages.find(arm.package_digest), arm.package_digest).signature
        try:
            Conditions([rule.when], signature)
        except Usage as error:
            raise Usage(f"rule {rule.name} does not fit the {arm.name}: {error.message}", next=error.next) from None
        if rule.output is not None:
            check_fixed("--output", rule.output, signature, whole=False)
    names = [arm.name for arm in route.arms]
    if rule.then == "use" and rule.arm not in names:
        raise Usage(f"rule {rule.name} uses {rule.arm}, which is no arm (there: {', '.join(names)})")
    if rule.then == "fallback" and isinstance(route.parameters.fallback, str):
        step = f"interlock params {route.endpoint} FALLBACK='{{…}}'"
        raise Usage(f"rule {rule.name} falls back, but FALLBACK of {route.endpoint} is no answer", next=step)


def check_rules(route: RouteDocument, packages: PackageStore) -> None:
    """Whether the rules that are there fit what the route has become.

    Raises:
        Conflict: one does not.
    """
    for rule in route.rules:
        try:
            check_rule(rule, route, packages)
        except Usage as error:
            raise Conflict(error.message, next=f"interlock rules {route.endpoint} remove {rule.name}") from None


def without_misfits(route: RouteDocument, packages: PackageStore) -> RouteDocument:
    """The route without the rules that do not fit what it has become."""

    def fits(rule: Rule) -> bool:
        try:
            check_rule(rule, route, packages)
        except Usage:
            return False
        return True

    return replace(route, rules=tuple(rule for rule in route.rules if fits(rule)))


def check_time(rule: Rule, route: RouteDocument, packages: PackageStore) -> None:
    """Ask a rule about the golden rows of every arm, and its patterns alone, which a row may skip.

    Raises:
        Usage: one row, or all patterns together, take longer than 1 ms, five times out of five.
    """
    from interlock.model import golden, oip  # here: numpy, for which a kill switch does not wait
    from interlock.model.conditions import Conditions

    for arm in route.arms:
        package = verify(packages.find(arm.package_digest), arm.package_digest)
        signature = package.manifest.signature
        asked = oip.InferRequest(golden.decode(package.files[golden.FILE]).inputs)
        rows, columns = oip.read_columns(signature, asked)
        conditions = Conditions([rule.when], signature)
        took = sum(_took(pattern.execute) for pattern in conditions.patterns)
        for row in range(rows):
            one = [[column[row]] for column in columns]
            took = max(took, _took(conditions.first, one, 1, "unit", 0))
        if took > SECONDS:
            raise Usage(
                f"rule {rule.name} takes {took * 1000:.1f} ms a row; {SECONDS * 1000:g} ms are allowed",
                next="shorter lists, simpler patterns ([0-9] for \\d, startsWith for ^)",
            )


def _took(action: Callable[..., Any], *arguments: Any) -> float:
    """Seconds at its best of five times: others use this machine too."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        action(*arguments)
        times.append(time.perf_counter() - began)
    return min(times)
