"""When nothing new is released: freeze windows, and the soak of a champion."""

from __future__ import annotations

from datetime import datetime, timedelta

from interlock.core.clock import iso, parse_time
from interlock.core.errors import Refused
from interlock.core.settings import StandardSettings
from interlock.core.trust import TrustRoot
from interlock.registry.routes import CHAMPION, RouteDocument, RouteStore


def growing(before: RouteDocument, after: RouteDocument) -> list[str]:
    """Digests of packages, the champion's apart, that get more requests than they had, or become the champion."""
    champion = before.arm(CHAMPION).package_digest if before.arms else None
    found = dict.fromkeys(arm.package_digest for arm in after.arms if arm.package_digest != champion)
    return [
        one
        for one in found
        if (after.most(one) or 0) > (before.most(one) or 0) or after.arm(CHAMPION).package_digest == one
    ]


def require_open(
    standard: StandardSettings, routes: RouteStore, route: RouteDocument, trust: TrustRoot, now: datetime
) -> None:
    """Nothing, where another version may get more of the endpoint's traffic now.

    Raises:
        Refused: it is frozen, or the champion has not served long enough.
    """
    emergency = "in an emergency: interlock approve MODEL:V --override REASON, by a reviewer and an admin"
    for window in standard.freeze:
        if window.holds(now):
            raise Refused(f"nothing new is released from {window}", next=emergency)
    if route.arms and standard.soak_hours:
        since = _champion_since(routes, route, trust)
        until = since + timedelta(hours=standard.soak_hours)
        if now < until:
            arm = route.arm(CHAMPION)
            raise Refused(
                f"{arm.model}:{arm.version} is champion of {route.endpoint} since {iso(since)} and soaks until {iso(until)}",
                next=emergency,
            )


def _champion_since(routes: RouteStore, route: RouteDocument, trust: TrustRoot) -> datetime:
    """The time of the revision that made the champion what it is."""
    digest, since, number = route.arm(CHAMPION).package_digest, route.time, route.revision - 1
    while number:
        before = routes.read(route.endpoint, trust, number, past=True)
        if before.arm(CHAMPION).package_digest != digest:
            break
        since, number = before.time, number - 1
    return parse_time(since)
