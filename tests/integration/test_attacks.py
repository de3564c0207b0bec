"""Full write access to the database and to every file of the project, but nobody's private key: nothing unapproved is served.

Each attack meets a real gateway that serves an approved package, and a real model server that is started on another one.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import insert, update
from tests.gate import Gate
from tests.house import House, Process, body, obey, running, until

from interlock.core import signing
from interlock.core.clock import SystemClock, iso
from interlock.core.errors import NotApproved
from interlock.core.hashing import canonical
from interlock.core.policy import Limits, Policy, Quorum
from interlock.core.trust import seal_trust
from interlock.registry.gateways import EndpointStatus, read_live
from interlock.release import audit
from interlock.store.tables import routes as routes_table
from interlock.store.tables import versions as versions_table

INFER = "/v2/models/flight-delay/infer"
E = "flight-delay"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The first package is approved and serves; the second is what the attacker wants to be served."""
    made = House(tmp_path_factory.mktemp("attacks") / "house")
    made.keys |= {name: signing.generate() for name in ("rob2", "svc")}
    made.roles |= {"rob2": ("reviewer",), "svc": ("route",), "ann": ("author", "reviewer")}
    made.owners["rob2"] = "rob"
    made.write_trust()
    made.packages_made = [made.package(1), made.package(2)]
    made.approve(made.packages_made[0])
    route = made.route({"champion": (made.packages_made[0], 10_000)})
    with running(made.serve(made.packages_made[0]), made.gateway()):
        obey(made, route.revision)
        yield made
    made.close()


def error(house: House) -> str:
    found: EndpointStatus = read_live(house.project.gateways)[0].endpoints[E]
    return found.error or ""


def serves(house: House) -> str:
    answer = house.client.post(house.url + INFER, json=body())
    assert answer.status_code == 200, answer.text
    return str(answer.headers["x-interlock-package-digest"])


def expired(house: House, second: str) -> None:
    an_hour_ago = iso(SystemClock().now() - timedelta(hours=1))
    house.approve(second, time=iso(SystemClock().now() - timedelta(hours=2)), expires=an_hour_ago)


def one_bit(house: House, second: str) -> None:
    path = house.approve(second, decision="reject")
    altered = bytearray(path.read_bytes())
    altered[200] ^= 1
    path.write_bytes(altered)


def rewritten(house: House, second: str) -> None:
    """The reject becomes an approve, neatly encoded again."""
    path = house.approve(second, decision="reject")
    envelope = json.loads(path.read_bytes())
    said = json.loads(base64.b64decode(envelope["payload"]))
    said["predicate"]["decision"] = "approve"
    path.write_bytes(canonical(envelope | {"payload": base64.b64encode(canonical(said)).decode()}))


def copied(house: House, second: str) -> None:
    first = house.project.approvals / house.packages_made[0].removeprefix("sha256:")
    shutil.copytree(first, house.project.approvals / second.removeprefix("sha256:"))


def one_owner(house: House, second: str) -> None:
    house.approve(second, risk="high")
    house.approve(second, by="rob2", risk="high")


def other_evidence(house: House, second: str) -> None:
    house.approve(second, risk="high")
    house.approve(second, by="rhea", risk="high", diff="sha256:other")


def lower_class(house: House, second: str) -> None:
    """One says high, and another one low."""
    house.approve(second, risk="high")
    house.approve(second, by="rhea", risk="low", diff="sha256:other")


PLANTED: dict[str, tuple[Callable[[House, str], Any], str]] = {
    "nothing": (lambda house, second: None, "no approval|without an approval"),
    "copied from another package": (copied, "no approval"),
    "of scope shadow": (lambda house, second: house.approve(second, scope="shadow"), "no approval of the scope serve"),
    "by a route key": (lambda house, second: house.approve(second, by="svc"), "has not the role reviewer"),
    "by an operator": (lambda house, second: house.approve(second, by="olga"), "has not the role reviewer"),
    "by the author": (lambda house, second: house.approve(second, by="ann"), "trained this model"),
    "two keys of one owner": (one_owner, "1 of the 2 approvals"),
    "two on other evidence": (other_evidence, "1 of the 2 approvals"),
    "two of other classes": (lower_class, "1 of the 2 approvals"),
    "expired": (expired, "expired on"),
    "one bit": (one_bit, "altered|canonical|match|base64"),
    "rewritten": (rewritten, "does not match its content"),
    "override alone": (lambda house, second: house.approve(second, override="now!"), "takes a reviewer and another"),
    "override twice": (
        lambda house, second: [house.approve(second, by=by, override="now!") for by in ("rob", "rhea")],
        "takes a reviewer and another",
    ),
}


@pytest.mark.parametrize(("plant", "why"), PLANTED.values(), ids=PLANTED)
def test_an_approval_that_is_none(house: House, plant: Callable[[House, str], Any], why: str) -> None:
    """The attacker even got an operator to sign a route to the package."""
    first, second = house.packages_made
    folder = house.project.approvals / second.removeprefix("sha256:")
    house.policy = Policy({"high": Quorum(2)}, {"default": Limits(override_hours=1)})
    house.write_trust()
    try:
        plant(house, second)
        house.route({"champion": (second, 10_000)})
        until(lambda: error(house), what="the refusal")
        server = house.serve(second)
        assert server.ended() == 1
        for told in (error(house), server.text):
            assert any(word in told for word in why.split("|")), told
        assert serves(house) == first
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        obey(house, house.route({"champion": (first, 10_000)}).revision)


def altered_trust(house: House, **values: Any) -> bytes:
    """trust.json with another content, its old signature kept."""
    envelope = json.loads(house.project.trust.read_bytes())
    content = json.loads(base64.b64decode(envelope["payload"])) | values
    return canonical(envelope | {"payload": base64.b64encode(canonical(content)).decode()})


def test_roles_are_forged_in_the_trust_root(house: House) -> None:
    """Edited; signed by another root; and put back to when a revoked key was trusted."""
    first, second = house.packages_made
    good = house.project.trust.read_bytes()
    stranger = signing.generate()
    root = msgspec.convert(signing.peek(good, "it"), type(house.trust_root()))
    mine = seal_trust(
        msgspec.structs.replace(root, revision=99, root_key=signing.public_text(stranger.public_key())), stranger
    )
    house.revoked = {"rob2"}
    house.write_trust()
    revoked = house.project.trust.read_bytes()
    until(
        lambda: json.loads((house.project.gateways / "0.seen.json").read_text())["trust"]["revision"] == house.revision
    )
    house.approve(second, by="rob2")
    house.route({"champion": (second, 10_000)})
    until(lambda: "void" in error(house), what="the refusal")
    forged = {
        "match its content": altered_trust(house, mode="solo"),
        "not signed by the root key": mine,
        "was put in the place of": good,
    }
    try:
        for why, data in forged.items():
            house.project.trust.write_bytes(data)
            until(lambda: why in error(house), what=why)  # noqa: B023
            assert serves(house) == first
        house.project.trust.write_bytes(good)  # a new process that is told the revision does not believe it either
        house.fingerprint, pin = f"{house.fingerprint}@{house.revision}", house.fingerprint
        server = house.serve(second)
        assert server.ended() == 1
        assert "asks for a newer one" in server.text
        house.fingerprint = pin
    finally:
        house.project.trust.write_bytes(revoked)
        house.revoked = set()
        house.write_trust()
        shutil.rmtree(house.project.approvals / second.removeprefix("sha256:"))
        obey(house, house.route({"champion": (first, 10_000)}).revision)


def test_an_old_route_is_played_back_and_a_rejection_removed(house: House) -> None:
    """Both were right once; the gateway remembers, also over a restart."""
    first, second = house.packages_made
    house.approve(second)
    old = house.route({"champion": (second, 10_000)})
    with running(house.serve(second)):
        obey(house, old.revision)
        good = house.project.trust.read_bytes()
        house.project.trust.write_bytes(b"{}")  # with nothing to verify by, a rejection is obeyed all the same
        until(lambda: "trust.json" in error(house), what="the broken trust root")
        rejection = house.approve(second, decision="reject")
        until(lambda: house.client.post(house.url + INFER, json=body()).status_code == 503, what="the closing")
        house.project.trust.write_bytes(good)
        until(lambda: "is closed" in error(house), what="the closing by the book")
        rejection.unlink()
        until(lambda: "no approval" in error(house), what="the second closing")
        assert house.client.post(house.url + INFER, json=body()).status_code == 503
        newest = house.route({"champion": (first, 10_000)})
        obey(house, newest.revision)
        (house.project.routes / E / "current").write_text(f"{old.revision}\n")
        until(lambda: "older than revision" in error(house), what="the refusal")
        assert serves(house) == first
        (house.project.routes / E / "current").write_text(f"{newest.revision}\n")
    obey(house, newest.revision)
    shutil.rmtree(house.project.approvals / second.removeprefix("sha256:"))


def test_the_bytes_of_a_package_are_swapped(house: House, tmp_path: Path) -> None:
    first, second = (house.project.packages / found.removeprefix("sha256:") for found in house.packages_made)
    shutil.copytree(first, tmp_path / "kept")
    shutil.copytree(second, first, dirs_exist_ok=True)
    try:
        server = Process(
            "model_server", "--package", str(first), "--approval", str(house.project.approvals / first.name),
            "--trust", str(house.project.trust), "--root", house.fingerprint, "--socket", str(tmp_path / "s"),
        )  # fmt: skip
        assert server.ended() == 1
        assert "no approval" in server.text or "tampered" in server.text
        house.route({"champion": (house.packages_made[0], 10_000)})
        until(lambda: error(house), what="the refusal")
    finally:
        shutil.copytree(tmp_path / "kept", first, dirs_exist_ok=True)
        obey(house, house.route({"champion": (house.packages_made[0], 10_000)}).revision)


def test_tables_and_roles_are_forged_in_the_database(gate: Gate) -> None:
    """A version is released, by a reviewer, in an endpoint, says the database; the files do not."""
    name = gate.version(1)
    with gate.database.write() as connection:
        connection.execute(update(versions_table).values(release=7, author="mallory"))
        row = {
            "endpoint": E,
            "revision": 1,
            "digest": "sha256:0",
            "author": "olga",
            "reason": "",
            "time": iso(SystemClock().now()),
        }
        connection.execute(insert(routes_table).values(row))
    audit.append(gate.database, "rob", "approve", name, None, {"decision": "approve", "scope": "serve"}, "fine")
    with pytest.raises(NotApproved):
        gate.rollout().deploy(name, E, "champion")
    assert not gate.rollout().routes.endpoints()
