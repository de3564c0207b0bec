"""Waiting until the gateways do what was signed."""

from __future__ import annotations

import time

import msgspec

from interlock.core.errors import Unavailable
from interlock.core.project import Project
from interlock.registry.gateways import GatewayStatus, read_live
from interlock.registry.routes import Arm, RouteDocument, Shadow

POLL_SECONDS = 0.05


def wait_until_obeyed(
    project: Project, route: RouteDocument, arm: str = "", *, timeout: float = 30.0
) -> list[GatewayStatus]:
    """Wait until every gateway that lives has taken the revision, and a replica of `arm` answers at each.

    Returns the gateways; empty when none lives: then there is nothing to wait for.

    Raises:
        Unavailable: not within `timeout` seconds; says which gateway and why.
    """
    end = time.monotonic() + timeout
    while True:
        live = read_live(project.gateways)
        reasons = [reason for status in live if (reason := _missing(status, route, arm))]
        if not reasons:
            return live
        if time.monotonic() >= end:
            served: list[Arm | Shadow] = [*route.arms, *route.shadows]
            servers = next((one.replicas for one in served if one.name == arm), ())
            said = next((last for name in servers if (last := _last_word(project, name))), "")
            raise Unavailable(
                f"{route.endpoint} revision {route.revision} is signed, but {reasons[0]}{said}",
                next="see which process is down: interlock status; their logs are in .interlock/logs",
            )
        time.sleep(POLL_SECONDS)


def _missing(status: GatewayStatus, route: RouteDocument, arm: str) -> str:
    """Why this gateway does not do it yet; empty when it does."""
    known = status.endpoints.get(route.endpoint)
    if known is None:
        return f"gateway {status.slot} has not seen it"
    because = f": {known.error}" if known.error else ""
    if known.revision < route.revision:
        return f"gateway {status.slot} is at revision {known.revision}{because}"
    if arm and known.revision == route.revision and not known.arms.get(arm):
        return f"no replica of {arm} answers at gateway {status.slot}{because}"
    return ""


class _Reason(msgspec.Struct):
    message: str


def _last_word(project: Project, replica: str) -> str:
    """Why a model server did not start, if that is the last line of its log."""
    log = project.logs / f"model-server-{replica}.log"
    lines = log.read_bytes().splitlines() if log.exists() else []
    try:
        return f": {msgspec.json.decode(lines[-1], type=_Reason).message}" if lines else ""
    except msgspec.DecodeError:
        return ""
