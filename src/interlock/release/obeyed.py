"""Waiting until the gateways do what was signed."""

from __future__ import annotations

import time
from pathlib import Path

from interlock.core.errors import Unavailable
from interlock.registry.gateways import GatewayStatus, read_live
from interlock.registry.routes import RouteDocument

POLL_SECONDS = 0.05


def wait_until_obeyed(
    folder: Path, route: RouteDocument, arm: str = "", *, timeout: float = 30.0
) -> list[GatewayStatus]:
    """Wait until every gateway that lives has taken the revision, and a replica of `arm` answers at each.

    Returns the gateways; empty when none lives: then there is nothing to wait for.

    Raises:
        Unavailable: not within `timeout` seconds; says which gateway and why.
    """
    end = time.monotonic() + timeout
    while True:
        live = read_live(folder)
        reasons = [reason for status in live if (reason := _missing(status, route, arm))]
        if not reasons:
            return live
        if time.monotonic() >= end:
            raise Unavailable(
                f"{route.endpoint} revision {route.revision} is signed, but {reasons[0]}",
                next="see which process is down: interlock status; their logs are in .interlock/logs",
            )
        time.sleep(POLL_SECONDS)


def _missing(status: GatewayStatus, route: RouteDocument, arm: str) -> str:
    """Why this gateway does not do it yet; empty when it does."""
    known = status.endpoints.get(route.endpoint)
    if known is None:
        return f"gateway {status.slot} has not seen it"
    if known.revision < route.revision:
        return f"gateway {status.slot} is at revision {known.revision}{_because(known.error)}"
    if arm and known.revision == route.revision and not known.arms.get(arm):
        return f"no replica of {arm} answers at gateway {status.slot}{_because(known.error)}"
    return ""


def _because(error: str | None) -> str:
    return f": {error}" if error else ""
