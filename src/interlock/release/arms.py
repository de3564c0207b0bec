"""What a person's step makes of a route document: who is champion, who stands by, and how many units each arm gets.

Pure functions, document in, document out. Units move as little as possible (`core.assignment`); a step that changes
versions or shares starts a new phase and keeps the salt, so that nobody is shuffled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import msgspec

from interlock.core.assignment import BUCKETS, Ranges, move, share
from interlock.core.errors import Conflict, Usage
from interlock.registry.routes import CHAMPION, Arm, RouteDocument, Shadow, Standby, replica_name

replace = msgspec.structs.replace


def put_champion(route: RouteDocument, new: Arm) -> RouteDocument:
    """Let `new` serve as champion; the one before stands by.

    Raises:
        Conflict: the version is another arm of this endpoint.
    """
    if not route.arms:
        return replace(route, arms=(replace(new, ranges=((0, BUCKETS),)),))
    for arm in route.arms:
        if arm.name != CHAMPION and arm.package_digest == new.package_digest:
            raise Conflict(
                f"{new.model}:{new.version} is the arm {arm.name} of {route.endpoint}",
                next=f"interlock promote {route.endpoint} {arm.name}",
            )
    old = route.arm(CHAMPION)
    standby = route.standby if old.package_digest == new.package_digest else _standby(old)
    return replace(_with(route, replace(new, ranges=old.ranges)), standby=standby)


def put_challenger(route: RouteDocument, new: Arm, buckets: int) -> RouteDocument:
    """Let `new` serve as the challenger of its name with `buckets` cut from the champion; again: other replicas, share.

    Raises:
        Conflict: there is no champion, or the name serves another version.
    """
    if not route.arms:
        raise Conflict(
            f"{route.endpoint} has no champion yet",
            next=f"interlock deploy {new.model}:{new.version} --to {route.endpoint} --as champion",
        )
    old = next((arm for arm in route.arms if arm.name == new.name), None)
    if old and old.package_digest != new.package_digest:
        raise Conflict(
            f"{new.name} of {route.endpoint} is {old.model}:{old.version}",
            next=f"retire it first: interlock retire {route.endpoint} {new.name}; or deploy --as challenger-2",
        )
    route = _with(route, replace(new, ranges=old.ranges if old else ()))
    counts = {arm.name: share(arm.ranges) for arm in route.arms}
    counts[CHAMPION] -= buckets - counts[new.name]
    counts[new.name] = buckets
    if counts[CHAMPION] < 0:
        raise Conflict(
            f"the champion of {route.endpoint} has only {percent(share(route.arm(CHAMPION).ranges))} to give",
            next=f"lower another arm first: interlock traffic {route.endpoint} ARM=PERCENT …",
        )
    return _share_out(route, counts)


def put_shadow(route: RouteDocument, new: Shadow) -> RouteDocument:
    """Let `new` be asked what the endpoint is asked; again: other replicas.

    Raises:
        Conflict: there is no champion, the version is an arm, or the name is another version's.
    """
    if not route.arms:
        raise Conflict(
            f"{route.endpoint} has no champion yet, so nobody asks it anything",
            next=f"interlock deploy {new.model}:{new.version} --to {route.endpoint} --as champion",
        )
    arm = next((arm for arm in route.arms if arm.package_digest == new.package_digest), None)
    old = next((one for one in route.shadows if one.name == new.name), None)
    if arm is not None or (old is not None and old.package_digest != new.package_digest):
        taken = f"{new.model}:{new.version} is the arm {arm.name}" if arm else f"{new.name} is another version"
        raise Conflict(f"{taken} of {route.endpoint}", next="name another: deploy --as shadow-2")
    return replace(route, shadows=(*(one for one in route.shadows if one.name != new.name), new))


def keep_shadow(route: RouteDocument) -> RouteDocument:
    """Let the champion before, which stands by, be asked too, by as many servers of its own as it had.

    Raises:
        Conflict: there was no champion before.
    """
    old = route.standby
    if old is None:
        raise Conflict(f"{route.endpoint} has no champion before this one to keep", next="leave --keep-shadow out")
    if any(one.package_digest == old.package_digest for one in route.shadows):
        return route
    taken = {one.name for one in route.shadows}
    name = "shadow" if "shadow" not in taken else next(f"shadow-{i}" for i in count(2) if f"shadow-{i}" not in taken)
    servers = tuple(replica_name(old.package_digest, i + 1, shadow=True) for i in range(len(old.replicas)))
    return put_shadow(route, Shadow(old.model, old.version, old.package_digest, old.label, servers, name=name))


def set_shares(route: RouteDocument, counts: Mapping[str, int]) -> RouteDocument:
    """Give every arm its number of buckets.

    Raises:
        Usage: an arm is missing or unknown, or they do not add up.
    """
    return _share_out(route, counts)


def promote(route: RouteDocument, name: str = "") -> RouteDocument:
    """Make a challenger (the only one, if not named) the champion, with the units of both; the old champion stands by.

    Raises:
        Usage, NotFound: there is no such challenger, or none or several to choose from.
    """
    arm = route.arm(name or only_challenger(route))
    if arm.name == CHAMPION:
        raise Usage("the champion is promoted already", next=f"interlock promote {route.endpoint} CHALLENGER")
    old = route.arm(CHAMPION)
    alone = _without(route, arm.name)
    return replace(_with(alone, replace(arm, name=CHAMPION, ranges=alone.arm(CHAMPION).ranges)), standby=_standby(old))


def roll_back(route: RouteDocument) -> RouteDocument:
    """Exchange the champion and the one before it.

    Raises:
        Conflict: none stands by.
    """
    if route.standby is None:
        raise Conflict(
            f"{route.endpoint} has no champion to go back to",
            next=f"deploy a version: interlock deploy MODEL:V --to {route.endpoint} --as champion",
        )
    old, back = route.arm(CHAMPION), route.standby
    new = replace(old, **{name: getattr(back, name) for name in Standby.__struct_fields__})
    return replace(_with(route, new), standby=_standby(old))


def retire(route: RouteDocument, name: str = "") -> RouteDocument:
    """Take a shadow or an arm (the only challenger, if not named) out; its units go back to the champion.

    Raises:
        Conflict: it is the champion.
    """
    shadows = tuple(one for one in route.shadows if one.name != name)
    if len(shadows) < len(route.shadows):
        return replace(route, shadows=shadows)
    arm = route.arm(name or only_challenger(route))
    if arm.name == CHAMPION:
        raise Conflict(
            f"{route.endpoint} cannot be without a champion",
            next=f"stop it with: interlock params {route.endpoint} ACTIVATE=false; or promote another arm first",
        )
    return _without(route, arm.name)


def only_challenger(route: RouteDocument) -> str:
    """The name of the endpoint's one challenger.

    Raises:
        Usage: there is none, or more than one.
    """
    names = [arm.name for arm in route.arms if arm.name != CHAMPION]
    if len(names) != 1:
        there = ", ".join(names) or "no challenger"
        raise Usage(f"{route.endpoint} has {there}: say which arm", next="name it after the endpoint")
    return names[0]


def phase_changed(before: RouteDocument, after: RouteDocument) -> bool:
    """Whether units see other versions or other shares than before."""
    return _assignment(before) != _assignment(after)


def summary(route: RouteDocument) -> dict[str, Any]:
    """Who serves what, in a line of the audit trail."""
    return {
        "revision": route.revision,
        "arms": {arm.name: f"{arm.model}:{arm.version} {percent(share(arm.ranges))}" for arm in route.arms},
        "standby": f"{route.standby.model}:{route.standby.version}" if route.standby else None,
        "shadows": {one.name: f"{one.model}:{one.version}" for one in route.shadows},
        "phase": route.experiment.phase,
        **{name: value for name in ("risk", "diff") if (value := getattr(route, name)) is not None},
        **({"override": route.override.until} if route.override else {}),
    }


def difference(before: RouteDocument, after: RouteDocument) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two summaries, with the parameters and the rules that differ."""
    old, new = (msgspec.to_builtins(route.parameters) for route in (before, after))
    names = [name for name in new if old[name] != new[name]] if before.revision else []
    gone = [msgspec.to_builtins(rule) for rule in before.rules if rule not in after.rules]
    come = [msgspec.to_builtins(rule) for rule in after.rules if rule not in before.rules]
    return (
        summary(before) | {name: old[name] for name in names} | ({"rules": gone} if gone else {}),
        summary(after) | {name: new[name] for name in names} | ({"rules": come} if come else {}),
    )


def percent(buckets: int) -> str:
    """`1250` → `12.5%`."""
    return f"{buckets * 100 / BUCKETS:g}%"


def parse_percent(text: str) -> int:
    """`12.5%` or `12.5` → 1250 buckets.

    Raises:
        Usage: no percentage between 0 and 100 with at most two decimals.
    """
    try:
        exact = float(text.removesuffix("%")) * BUCKETS / 100
    except ValueError:
        exact = -1.0
    if not 0 <= exact <= BUCKETS or abs(exact - round(exact)) > 1e-6:
        raise Usage(f"{text!r} is no percentage between 0 and 100 with at most two decimals", next="as in: 12.5%")
    return round(exact)


def _share_out(route: RouteDocument, counts: Mapping[str, int]) -> RouteDocument:
    ranges = move({arm.name: arm.ranges for arm in route.arms}, counts)
    return replace(route, arms=tuple(replace(arm, ranges=ranges[arm.name]) for arm in route.arms))


def _with(route: RouteDocument, new: Arm) -> RouteDocument:
    """The arm of that name replaced in its place, or added at the end; a champion is no shadow any more."""
    arms: Sequence[Arm] = [new if arm.name == new.name else arm for arm in route.arms]
    shadows = tuple(one for one in route.shadows if new.name != CHAMPION or one.package_digest != new.package_digest)
    return replace(route, arms=tuple(arms if new in arms else [*arms, new]), shadows=shadows)


def _without(route: RouteDocument, name: str) -> RouteDocument:
    """The arm taken out, its units given back to the champion."""
    counts = {arm.name: share(arm.ranges) for arm in route.arms}
    counts[CHAMPION] += counts[name]
    counts[name] = 0
    freed = _share_out(route, counts)
    return replace(freed, arms=tuple(arm for arm in freed.arms if arm.name != name))


def _standby(arm: Arm) -> Standby:
    return Standby(**{name: getattr(arm, name) for name in Standby.__struct_fields__})


def _assignment(route: RouteDocument) -> dict[str, tuple[str, Ranges]]:
    return {arm.name: (arm.package_digest, arm.ranges) for arm in route.arms}
