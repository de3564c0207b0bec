"""`interlock up`: everything lives, comes back when killed, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.house import House, Process, body, obey, until

from interlock.deploy.doctor import examine
from interlock.registry.gateways import read_live
from interlock.registry.routes import Standby, replica_name
from interlock.store.database import Database


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "house")
    with made.project.config.open("a") as file:
        file.write("gateways = 2\n")
    Database(made.project.database, create=True).close()
    made.packages_made = [made.package(1)]
    made.approve(made.packages_made[0])
    made.route({"champion": (made.packages_made[0], 10_000)})
    yield made
    made.close()


def start(house: House) -> Process:
    return Process("up", "--project", str(house.project.root))


def status(house: House) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((house.project.state / "up.json").read_bytes())
    return found


def pids(house: House) -> dict[str, int]:
    return {one["name"]: one["pid"] for one in status(house)["processes"]}


def gateways(house: House) -> dict[str, int]:
    return {name: pid for name, pid in pids(house).items() if name.startswith("gateway-")}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def came_back(house: House, name: str, killed: int) -> bool:
    return pids(house)[name] not in (None, killed)


def test_lives_comes_back_and_leaves_nothing(house: House) -> None:
    up = start(house)
    try:
        up.ready()
        obey(house, 1)
        infer = f"{house.url}/v2/models/flight-delay/infer"
        assert house.client.post(infer, json=body()).status_code == 200
        second = start(house)
        assert second.ended() == 1
        assert f"interlock up (pid {up.child.pid})" in second.text
        before = pids(house)
        assert {name.rstrip("0123456789abcdef") for name in before} >= {"recorder", "worker", "server", "gateway-"}
        for name, pid in before.items():
            os.kill(pid, signal.SIGKILL)
            until(partial(came_back, house, name, pid), what=f"return of {name}")
        until(lambda: status(house)["ready"], what="all ready again")
        obey(house, 1)
        assert house.client.post(infer, json=body()).status_code == 200
        children = pids(house)
    finally:
        assert up.stop() == 0
    assert not [name for name, pid in children.items() if alive(pid)]
    assert not (house.project.state / "up.json").exists()


def test_children_die_with_a_killed_supervisor_and_another_takes_over(house: House) -> None:
    up = start(house).ready()
    children = pids(house)
    up.kill()
    up.stop()
    until(lambda: not [name for name, pid in children.items() if alive(pid)], what="the end of all children")
    again = start(house)
    try:
        again.ready()
        obey(house, 1)
    finally:
        again.stop()


def test_a_slip_in_the_settings_stops_nothing_that_runs(house: House) -> None:
    up = start(house).ready()
    try:
        obey(house, 1)
        good, before = house.project.config.read_text(), pids(house)
        house.project.config.write_text(good + "[no such section\n")
        other = house.package(2)
        house.approve(other)
        house.route({"champion": (other, 10_000)})
        obey(house, 2)
        infer = f"{house.url}/v2/models/flight-delay/infer"
        assert house.client.post(infer, json=body()).status_code == 200
        assert up.child.poll() is None
        assert before.items() <= pids(house).items()
        house.project.config.write_text(good)
    finally:
        assert up.stop() == 0


def test_a_busy_port_names_its_holder(house: House) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", house.port))
        holder.listen()
        up = start(house)
        assert up.ended() == 1
    assert f"port {house.port}" in up.text
    assert f"pid {os.getpid()}" in up.text


def test_a_refused_model_server_is_written_to_the_audit_trail_once(house: House) -> None:
    from sqlalchemy import select

    from interlock.store.tables import audit

    found = house.packages_made[0].removeprefix("sha256:")
    features = house.project.packages / found / "features.py"
    features.write_text(features.read_text() + "\n")
    up = start(house)
    try:
        database = Database(house.project.database)

        def refusals() -> list[Any]:
            with database.read() as connection:
                return list(connection.execute(select(audit).where(audit.c.action == "refused")))

        up.ready("is not the file that manifest.json lists; starting it again")
        (entry,) = until(refusals, what="an entry")
        assert "features.py" in entry.reason
        until(
            lambda: "restarts" in str(status(house)) and max(one["restarts"] for one in status(house)["processes"]) >= 2
        )
        assert len(refusals()) == 1
        assert {"processes", "packages"} <= {one.check for one in examine(house.project) if not one.ok}
        database.close()
    finally:
        up.stop()


class Load:
    """Clients that ask without a pause, from entering to leaving: what failed, and who answered."""

    def __init__(self, house: House, clients: int) -> None:
        self.house = house
        self.clients = clients
        self.failed: list[str] = []
        self.answered: Counter[str] = Counter()
        self._over = threading.Event()

    def _ask(self) -> None:
        with httpx.Client(base_url=self.house.url, timeout=30) as client:
            while not self._over.is_set():
                answer = client.post("/v2/models/flight-delay/infer", json=body())
                if answer.status_code == 200:
                    self.answered[answer.headers["x-interlock-package-digest"]] += 1
                else:
                    self.failed.append(answer.text)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._ask) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def test_a_rolling_restart_of_the_gateways_loses_no_request(house: House) -> None:
    up = start(house)
    try:
        up.ready()
        obey(house, 1)
        before = gateways(house)
        with Load(house, 6) as load:
            os.kill(up.child.pid, signal.SIGHUP)
            until(lambda: all(came_back(house, name, pid) for name, pid in before.items()), 60, "both replaced")
            until(lambda: not any(alive(pid) for pid in before.values()), 60, "the old ones gone")
        assert (load.failed, set(load.answered)) == ([], set(house.packages_made))
        assert {one.name for one in house.project.gateways.glob("?.json")} == {"0.json", "1.json"}
    finally:
        up.stop()


def test_gateways_that_start_anew_go_on_with_the_arms_before_a_version_that_does_not_start(house: House) -> None:
    first, broken = house.packages_made[0], house.package(2)
    house.approve(broken)
    source = house.project.packages / broken.removeprefix("sha256:") / "features.py"
    whole = source.read_bytes()
    source.write_bytes(whole + b"\n")

    def answers(of: str) -> bool:
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.post(f"{house.url}/v2/models/flight-delay/infer", json=body())
            return bool(answer.headers.get("x-interlock-package-digest") == of)
        return False

    up = start(house)
    try:
        up.ready()
        obey(house, 1)
        house.route({"champion": (broken, 10_000)})
        until(lambda: "no replica of champion answers yet" in str(acknowledged(house)), what="why it waits")
        before = gateways(house)
        with Load(house, 4) as load:
            os.kill(up.child.pid, signal.SIGHUP)
            until(lambda: all(came_back(house, name, pid) for name, pid in before.items()), 60, "both replaced")
            until(lambda: not any(alive(pid) for pid in before.values()), 60, "the old ones gone")
        assert (load.failed, set(load.answered)) == ([], {first})
        for pid in gateways(house).values():
            os.kill(pid, signal.SIGKILL)
        until(lambda: answers(first), what="an answer of the arms before")
        source.write_bytes(whole)
        until(lambda: answers(broken), 60, "an answer of the version that starts now")
    finally:
        up.stop()


def acknowledged(house: House) -> list[str | None]:
    """What every gateway says of the newest revision."""
    return [one.endpoints["flight-delay"].error for one in read_live(house.project.gateways)]


def test_versions_come_stand_by_and_go_under_load(house: House) -> None:
    house.packages_made += [house.package(2), house.package(3)]
    for digest in house.packages_made[1:]:
        house.approve(digest)
    first, second, third = house.packages_made

    def servers() -> dict[str, int]:
        """Process ids of the model servers, by the package that they serve."""
        running = pids(house)
        return {digest: running[name] for digest in house.packages_made for name in running if digest[7:19] in name}

    def obeys(slot: int, revision: int, to: str) -> bool:
        found = json.loads((house.project.gateways / f"{slot}.json").read_bytes())["endpoints"]["flight-delay"]
        return found["revision"] == revision and to in found["replicas"].values()

    def swapped(to: str, before: str, version: int) -> None:
        standby = Standby("flight-delay", version, before, f"{version}.0.0-1.00000000", (replica_name(before, 0),))
        revision = house.route({"champion": (to, 10_000)}, standby=standby).revision
        until(lambda: obeys(0, revision, to) and obeys(1, revision, to), 60, "the swap")

    up = start(house)
    try:
        up.ready()
        obey(house, 1)
        until(lambda: first in servers(), what="the first server")
        one = servers()[first]
        with Load(house, 4) as load:
            swapped(second, first, 1)
            assert alive(one), "it stands by"
            two = servers()[second]
            swapped(third, second, 2)
            until(lambda: not alive(one), 60, "the end of the first")
            assert alive(two), "it stands by"
        assert load.failed == []
        assert set(load.answered) == {first, second, third}
    finally:
        up.stop()
