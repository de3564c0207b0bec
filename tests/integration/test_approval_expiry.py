"""An approval that ends: alerts in time, and a gateway that freezes or stops."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest
from tests.gate import Gate

from interlock.core.clock import FixedClock, SystemClock
from interlock.core.errors import Expired
from interlock.core.project import Project
from interlock.gateway.endpoints import Endpoints
from interlock.monitoring import alerts
from interlock.monitoring.expiry import watch_approvals
from interlock.registry.packages import PackageStore
from interlock.registry.routes import RouteStore
from interlock.release.review import Terms, decide
from interlock.serving.door import admit

E = "flight-delay"


def approved(gate: Gate, name: str, days: float | None) -> None:
    end = SystemClock().now() + timedelta(days=days) if days else None
    decide(gate.project, gate.database, "rob", gate.people, name, "approve", "fine", terms=Terms(expires=end))


def test_alerts_fire_14_3_and_1_days_before_and_end_with_a_new_approval(gate: Gate) -> None:
    name = gate.version(1)
    approved(gate, name, 20)
    gate.rollout().deploy(name, E, "champion")
    start = SystemClock().now()

    def firing(days: float) -> list[str]:
        """Two passes, an hour apart."""
        for hours in (0, 1):
            watch_approvals(gate.project, gate.database, E, start + timedelta(days=days, hours=hours))
        rows = [row for row in alerts.listed(gate.database, E) if row.state == "FIRING"]
        assert all(row.slice == name and "ends about" in row.sentence for row in rows)
        return sorted(row.monitor.rpartition(":")[2] for row in rows)

    assert firing(5) == []
    assert firing(7) == ["14"]
    assert firing(17.5) == ["14", "3"]
    assert firing(19.2) == ["1", "14", "3"]
    assert firing(21) == ["1", "14", "3"]
    assert f"interlock review {name}" in alerts.listed(gate.database, E)[0].first_check
    approved(gate, name, None)
    assert firing(22) == []
    assert alerts.listed(gate.database, E) == []


async def closed(project: Project, at: datetime) -> str:
    """Why a gateway that starts at that time closes the champion or refuses the route; empty: it serves it."""
    gateway = Endpoints(
        routes=RouteStore(project.routes), packages=PackageStore(project.packages), approvals=project.approvals,
        trust=project.trust, fingerprint=project.root_fingerprint(), sockets=project.root / "none",
        seen=project.gateways / "9.seen.json", environment={}, clock=FixedClock(at),
    )  # fmt: skip
    gateway.refresh()
    found = gateway.by_name[E].arms["champion"] if E in gateway.by_name else None
    for replica in found.replicas if found else ():
        replica.close()
    return gateway.refused.get(E, "") or (found.closed if found else "nothing")


@pytest.mark.parametrize("on_expiry", ["freeze", "stop"])
def test_a_restart_after_the_end_serves_on_when_frozen(gate: Gate, on_expiry: str) -> None:
    name = gate.version(1)
    approved(gate, name, 1)
    gate.rollout().deploy(name, E, "champion")
    gate.rollout().change_parameters(E, {"ON_EXPIRY": on_expiry})
    later = SystemClock().now() + timedelta(days=2)
    said = asyncio.run(closed(gate.project, later))
    digest = gate.versions.named(name).package_digest
    package, approvals = gate.versions.packages.find(digest), gate.project.approvals / digest.removeprefix("sha256:")
    trust = gate.rollout().trust
    if on_expiry == "freeze":
        assert said == ""
        admit(package, approvals, trust, "serve", FixedClock(later), gate.project.routes)
    else:
        assert "expired on" in said
        with pytest.raises(Expired):
            admit(package, approvals, trust, "serve", FixedClock(later), gate.project.routes)
    with pytest.raises(Expired):  # by hand, for no route
        admit(package, approvals, trust, "serve", FixedClock(later))


def test_a_gateway_notices_the_end_without_any_file_changing(gate: Gate) -> None:
    name = gate.version(1)
    approved(gate, name, 1)
    gate.rollout().deploy(name, E, "champion")
    gate.rollout().change_parameters(E, {"ON_EXPIRY": "stop"})
    project, clock = gate.project, FixedClock(SystemClock().now())

    async def look() -> list[bool]:
        gateway = Endpoints(
            routes=RouteStore(project.routes), packages=PackageStore(project.packages), approvals=project.approvals,
            trust=project.trust, fingerprint=project.root_fingerprint(), sockets=project.root / "none",
            seen=project.gateways / "9.seen.json", environment={}, clock=clock,
        )  # fmt: skip
        said = []
        for days in (0, 0.5, 2):
            clock.at += timedelta(days=days)
            gateway.refresh()
            said.append(bool(gateway.by_name[E].arms["champion"].closed))
        for replica in gateway.by_name[E].arms["champion"].replicas:
            replica.close()
        return said

    assert asyncio.run(look()) == [False, False, True]
