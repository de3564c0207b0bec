"""Whatever people do in whatever order, the gateway serves what a small model of the rules admits, and nothing else."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.house import House

from interlock.core import signing, trust
from interlock.core.clock import FixedClock, iso, parse_time
from interlock.core.policy import Policy, Quorum
from interlock.gateway.endpoints import Endpoints
from interlock.gateway.upstream import Replica
from interlock.registry.packages import PackageStore
from interlock.registry.routes import Parameters, RouteStore

E = "flight-delay"
START = parse_time("2026-01-01T00:00:00Z")
HOUR = timedelta(hours=1)
people, packages = st.sampled_from(["rob", "rhea", "rob2"]), st.sampled_from([0, 1])
steps = st.one_of(
    st.tuples(st.just("approve"), people, packages, st.sampled_from([None, 5, 40])),
    st.tuples(st.just("approve"), people, packages, st.none()),
    st.tuples(st.sampled_from(["reject", "revoke", "request_changes"]), people, packages),
    st.tuples(st.sampled_from(["revoke key", "revoke from now", "rotate"]), people),
    st.tuples(st.just("deploy"), packages),
    st.tuples(st.just("deploy"), packages),
    st.tuples(st.sampled_from(["wait", "restart"])),
)
OWNER = {"rob": "rob", "rob2": "rob", "rhea": "rhea"}


class Said(msgspec.Struct):
    """A decision as the model knows it."""

    what: str
    by: str
    at: datetime
    end: datetime | None
    void: bool = False


class World:
    """The real files, and beside them what the model remembers."""

    def __init__(self, template: House, folder: Path, quorum: int, on_expiry: str) -> None:
        self.house = House(folder)
        self.house.keys = dict(template.keys)
        self.house.roles["rob2"] = ("reviewer",)
        self.house.policy = Policy({"low": Quorum(quorum)})
        shutil.copytree(template.project.packages, self.house.project.packages)
        self.found, self.quorum, self.on_expiry = template.packages_made, quorum, on_expiry
        self.clock = FixedClock(START)
        self.entries: list[trust.TrustedKey] = [
            trust.TrustedKey(name, OWNER.get(name, name), *identity(key), self.role(name), iso(START))
            for name, key in self.house.keys.items()
        ]
        self.said: dict[int, list[Said]] = {0: [], 1: []}
        self.deployed: list[tuple[int, datetime]] = []
        self.sign()

    def role(self, name: str) -> tuple[trust.Role, ...]:
        return ("reviewer",) if name in OWNER else ("author",) if name == "ann" else ("operator",)

    def sign(self) -> None:
        root = msgspec.structs.replace(self.house.trust_root(), keys=tuple(self.entries))
        self.house.revision += 1
        root = msgspec.structs.replace(root, revision=self.house.revision)
        self.house.project.trust.write_bytes(trust.seal_trust(root, self.house.root_key))

    def gateway(self) -> Endpoints:
        project = self.house.project
        return Endpoints(
            routes=RouteStore(project.routes), packages=PackageStore(project.packages), approvals=project.approvals,
            trust=project.trust, fingerprint=self.house.fingerprint, sockets=project.root / "none",
            seen=project.gateways / "0.seen.json", environment={}, clock=self.clock,
        )  # fmt: skip

    def act(self, step: Any) -> None:
        now = self.clock.at
        match step:
            case ("approve", by, number, hours):
                end = now + hours * HOUR if hours else None
                self.decide("approve", by, number, end)
            case ("reject" | "revoke" | "request_changes" as what, by, number):
                self.decide(what, by, number, None)
            case ("deploy", number):
                parameters = Parameters(on_expiry=self.on_expiry)  # type: ignore[arg-type] # one of the two
                self.house.route({"champion": (self.found[number], 10_000)}, time=iso(now), parameters=parameters)
                self.deployed.append((number, now))
            case ("rotate", by):
                self.end_key(by, now, void=())
                self.house.keys[by] = signing.generate()
                key = self.house.keys[by]
                self.entries.append(trust.TrustedKey(by, OWNER[by], *identity(key), ("reviewer",), iso(now)))
                self.sign()
            case ("revoke key", by):
                self.end_key(by, None, void=[one for said in self.said.values() for one in said if one.by == by])
            case ("revoke from now", by):
                self.end_key(by, now, void=())

    def decide(self, what: str, by: str, number: int, end: datetime | None) -> None:
        at = self.clock.at
        values = {"time": iso(at), "expires": iso(end) if end else None}
        self.house.approve(self.found[number], by=by, decision=what, **values)
        current = [one for one in self.entries if one.name == by][-1]
        self.said[number].append(Said(what, by, at, end, void=current.valid_to is not None))

    def end_key(self, name: str, at: datetime | None, void: Any) -> None:
        """Without a time: every key that this person ever had."""
        self.entries = [
            msgspec.structs.replace(one, valid_to=one.valid_from if at is None else one.valid_to or iso(at))
            if one.name == name
            else one
            for one in self.entries
        ]
        for one in void:
            one.void = True
        self.sign()

    def admits(self, number: int, served: bool) -> bool:
        """The rules in the model's own words."""
        history = self.said[number]
        taken = max((at for at, one in enumerate(history) if one.what != "approve"), default=-1)
        standing = [one for one in history[taken + 1 :] if not one.void]

        def enough(at: datetime) -> bool:
            last = {OWNER[one.by]: one for one in standing if one.at <= at}
            return sum(one.end is None or one.end > at for one in last.values()) >= self.quorum

        if enough(self.clock.at):
            return True
        if not served or self.on_expiry == "stop":
            return False
        since = None  # what was signed later and refused does not break the run
        for which, at in reversed(self.deployed):
            if which == number:
                since = at
            elif since is not None:
                break
        return since is not None and enough(since) and enough_but_for_time(standing, self.quorum)


def enough_but_for_time(standing: list[Said], quorum: int) -> bool:
    return len({OWNER[one.by] for one in standing}) >= quorum


def identity(key: signing.FileKey) -> tuple[str, str]:
    return signing.key_id(key.public_key()), signing.public_text(key.public_key())


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> House:
    house = House(tmp_path_factory.mktemp("template"))
    house.keys["rob2"] = signing.generate()
    house.packages_made = [house.package(1), house.package(2)]
    return house


@pytest.mark.usefixtures("always_live")
@settings(max_examples=40)
@given(
    plan=st.lists(steps, min_size=4, max_size=14),
    quorum=st.sampled_from([1, 2]),
    on_expiry=st.sampled_from(["freeze", "stop"]),
)
def test_the_gateway_serves_what_the_rules_admit(
    template: House, plan: list[Any], quorum: int, on_expiry: str
) -> None:  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(walk(World(template, Path(folder) / "house", quorum, on_expiry), plan))


@pytest.fixture(scope="module")
def always_live() -> Any:
    """Every replica answers: only the gate decides."""
    patch = pytest.MonkeyPatch()
    patch.setattr(Replica, "live", property(lambda _: True, lambda *_: None), raising=False)
    yield
    patch.undo()


async def walk(world: World, plan: list[Any]) -> None:
    gateway = world.gateway()
    for step in plan:
        world.clock.at += HOUR
        world.act(step)
        gateway.refresh()
        gateway.refresh()
        if step == ("restart",):
            close(gateway)
            gateway = world.gateway()
            gateway.refresh()
        if not world.deployed:
            continue
        newest = world.deployed[-1][0]
        endpoint = gateway.by_name.get(E)
        arm = endpoint.choose("unit", "")[0] if endpoint else None
        answers = None if arm is None or arm.closed else world.found.index(arm.arm.package_digest)
        if world.admits(newest, served=True):
            assert answers == newest, (step, gateway.refused)
        elif answers is not None:
            assert world.admits(answers, served=True), (step, answers)
    close(gateway)


def close(gateway: Endpoints) -> None:
    for endpoint in gateway.by_name.values():
        for served in endpoint.all():
            for replica in served.replicas:
                replica.close()
