"""The model server's door: nothing but a verified, approved package ever opens a port."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.house import FEATURES, INPUTS, House, Process, body, free_port, running

from interlock.core.settings import Mode
from interlock.model.paths import SERVED


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("doors"))
    made.packages_made = [made.package(1)]
    made.approve(made.packages_made[0])
    yield made
    made.close()


class Try:
    """What a model server is started with; each test spoils one thing."""

    def __init__(self, house: House, folder: Path) -> None:
        found = house.packages_made[0].removeprefix("sha256:")
        self.package = folder / found
        shutil.copytree(house.project.packages / found, self.package)
        self.approval = folder / "approval.dsse.json"
        shutil.copy(next((house.project.approvals / found).glob("*.json")), self.approval)
        self.trust = folder / "trust.json"
        shutil.copy(house.project.trust, self.trust)
        self.root = house.fingerprint
        self.port = free_port()

    def start(self, *more: str) -> Process:
        return Process(
            "model_server", "--package", str(self.package), "--approval", str(self.approval), "--trust", str(self.trust),
            "--root", self.root, "--port", str(self.port), *more,
        )  # fmt: skip

    def refused(self, code: str) -> str:
        process = self.start()
        assert process.ended() == 1, process.text
        line = json.loads(process.text.strip().splitlines()[-1])
        assert line["code"] == code, line
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", self.port)) != 0
        message: str = line["message"]
        return message


@pytest.fixture
def attempt(house: House, tmp_path: Path) -> Try:
    return Try(house, tmp_path)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.fixture(scope="module")
def serving(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Try]:
    good = Try(house, tmp_path_factory.mktemp("good"))
    with running(good.start()):
        yield good


def test_serves_the_protocol_when_approved(serving: Try) -> None:
    url = f"http://127.0.0.1:{serving.port}"
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/flight-delay/ready", "/readyz", "/v2"):
        assert httpx.get(url + path).status_code == 200, path
    described = httpx.get(f"{url}/v2/models/flight-delay").json()
    assert [one["name"] for one in described["inputs"]] == [spec.name for spec in INPUTS]
    golden = json.loads((serving.package / "golden.json").read_bytes())
    answer = httpx.post(f"{url}/v2/models/flight-delay/infer", json={"inputs": golden["inputs"], "id": "7"}).json()
    assert answer["id"] == "7"
    assert answer["outputs"][0]["data"] == pytest.approx(golden["numbers"], rel=1e-9)
    only = httpx.post(f"{url}/v2/models/flight-delay/infer", json=body() | {"outputs": [{"name": "label"}]}).json()
    assert [output["name"] for output in only["outputs"]] == ["label"]
    assert httpx.post(f"{url}/v2/models/flight-delay/infer", content=b"{").status_code == 400
    assert httpx.post(f"{url}/v2/models/other/infer", json=body()).status_code == 404
    assert "interlock_model_rows_total" in httpx.get(f"{url}/metrics").text
    digest = serving.package.name
    for path, allowed in SERVED.items():
        place = url + path.format(model="flight-delay", version=f"sha256:{digest}")
        other, taken = ("GET", "POST") if allowed == "POST" else ("POST", "GET")
        assert "nothing is served" not in httpx.request(taken, place).text, path
        refused = httpx.request(other, place)
        assert (refused.status_code, refused.headers["allow"]) == (405, allowed), path


@pytest.mark.parametrize("name", ["manifest.json", "model/model.skops", "features.py", "profile.json", "golden.json"])
def test_a_package_altered_by_one_bit_is_refused(attempt: Try, name: str) -> None:
    path = attempt.package / name
    flip(path, path.stat().st_size // 2)
    attempt.refused("tampered")


def test_an_approval_altered_by_one_bit_is_refused(attempt: Try) -> None:
    for at in range(10, attempt.approval.stat().st_size, attempt.approval.stat().st_size // 3):
        flip(attempt.approval, at)
        attempt.refused("tampered")
        flip(attempt.approval, at)


def test_a_trust_root_of_somebody_else_is_refused(attempt: Try, tmp_path: Path) -> None:
    stranger = House(tmp_path / "stranger")
    shutil.copy(stranger.project.trust, attempt.trust)
    assert "root key" in attempt.refused("tampered")


def test_an_unsigned_package_is_refused(attempt: Try) -> None:
    attempt.approval.unlink()
    assert "without an approval" in attempt.refused("not_approved")


def test_an_approval_of_another_package_is_refused(attempt: Try, house: House) -> None:
    other = house.package(5)
    shutil.copy(house.approve(other), attempt.approval)
    assert "no approval" in attempt.refused("not_approved")


@pytest.mark.parametrize(("by", "code"), [("olga", "not_approved"), ("ann", "not_approved")])
def test_only_a_reviewer_signs(attempt: Try, house: House, by: str, code: str) -> None:
    shutil.copy(house.approve(house.packages_made[0], by=by), attempt.approval)
    assert "role reviewer" in attempt.refused(code)
    for path in (house.project.approvals / house.packages_made[0].removeprefix("sha256:")).glob("*.json"):
        if path.read_bytes() == attempt.approval.read_bytes():
            path.unlink()


def test_a_later_rejection_takes_an_approval_back(attempt: Try, house: House) -> None:
    folder = attempt.approval.parent / "decisions"
    folder.mkdir()
    shutil.move(attempt.approval, folder / "1.dsse.json")
    rejected = house.approve(house.packages_made[0], decision="reject")
    shutil.move(rejected, folder / "2.dsse.json")
    attempt.approval = folder
    assert "was rejected by rob" in attempt.refused("not_approved")


@pytest.mark.parametrize("mode", ["team", "solo"])
def test_four_eyes(tmp_path: Path, mode: Mode) -> None:
    house = House(tmp_path / "house", mode)
    house.roles["ann"] = ("author", "reviewer")
    house.write_trust()
    house.packages_made = [house.package(1)]
    house.approve(house.packages_made[0], by="ann")
    attempt = Try(house, tmp_path)
    if mode == "team":
        assert "may not sign" in attempt.refused("four_eyes")
    else:
        with running(attempt.start()):
            answer = httpx.post(f"http://127.0.0.1:{attempt.port}/v2/models/flight-delay/infer", json=body())
            assert answer.json()["parameters"]["approval"] == "self-approved"


def test_wrong_golden_answers_keep_it_from_becoming_ready(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    drifting = FEATURES.replace(
        '"hour": raw["at"].dt.hour', '"hour": raw["at"].dt.hour + __import__("os").getpid() % 7919'
    )
    house.packages_made = [house.package(1, drifting)]
    house.approve(house.packages_made[0])
    assert "golden request" in Try(house, tmp_path).refused("corrupt")


def test_offline_needs_a_socket_and_opens_no_port(attempt: Try, house: House) -> None:
    wrong = Process("model_server", "--package", str(attempt.package), "--offline", "--port", str(attempt.port))
    assert wrong.ended() == 2
    path = house.project.make_sockets() / "offline"
    with running(Process("model_server", "--package", str(attempt.package), "--offline", "--socket", str(path))):
        with httpx.Client(transport=httpx.HTTPTransport(uds=f"{path}.http")) as client:
            answer = client.post("http://model/v2/models/flight-delay/infer", json=body())
        assert answer.json()["parameters"]["approval"] == "offline"


FORBIDDEN = (
    "duckdb", "ibis", "sqlalchemy", "alembic", "dbos", "statsmodels", "altair", "fastapi", "jinja2", "matplotlib",
    "interlock.warehouse", "interlock.store", "interlock.jobs", "interlock.training", "interlock.evaluation",
    "interlock.release", "interlock.deploy", "interlock.experiments", "interlock.monitoring",
    "interlock.registry.versions", "interlock.registry.evaluations",
)  # fmt: skip
PROBE = """
import atexit, os, runpy, sys
target = os.environ["PROBE_FILE"]
atexit.register(lambda: open(target, "w").write("\\n".join(sorted(sys.modules))))
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def test_serving_processes_hold_nothing_of_training_analysis_or_pages(house: House, tmp_path: Path) -> None:
    """A real model server and a real gateway answer one request each; then we look at what they have imported."""
    found = house.packages_made[0]
    house.route({"champion": (found, 10_000)})
    modules = {}
    server = Probe(tmp_path / "server", house.serve, found)
    gateway = Probe(tmp_path / "gateway", house.gateway)
    try:
        server.process.ready()
        gateway.process.ready()
        answer = None
        while answer is None or answer.status_code != 200:
            answer = house.client.post(f"{house.url}/v2/models/flight-delay/infer", json=body())
        house.client.post(
            f"{house.url}/endpoints/flight-delay/feedback",
            json={"prediction_id": answer.headers["x-interlock-prediction-id"], "label": True},
        )
    finally:
        for probe in (gateway, server):
            probe.process.stop()
            modules[probe] = probe.file.read_text().split("\n")
    for probe, names in modules.items():
        loaded = {name for name in names for bad in FORBIDDEN if name == bad or name.startswith(bad + ".")}
        assert not loaded, f"{probe.file.name}: {sorted(loaded)}"
    assert "sklearn" in modules[server]
    assert not {"pandas", "scipy", "sklearn"} & set(modules[gateway])


class Probe:
    """A process of the house that writes down its modules when it ends."""

    def __init__(self, file: Path, start: object, *arguments: object) -> None:
        self.file = file
        starter = file.with_suffix(".py")
        starter.write_text(PROBE)
        python = file.with_suffix(".sh")
        python.write_text(f'#!/bin/sh\nshift\nexec "{sys.executable}" "{starter}" "$@"\n')
        python.chmod(0o755)
        original = sys.executable
        os.environ["PROBE_FILE"] = str(file)
        try:
            sys.executable = str(python)
            self.process: Process = start(*arguments)  # type: ignore[operator]  # a method of House
        finally:
            sys.executable = original
            del os.environ["PROBE_FILE"]


def test_help_and_wrong_usage() -> None:
    command = [sys.executable, "-m", "interlock.processes.model_server"]
    assert subprocess.run([*command, "--help"], capture_output=True, check=True).stdout
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2
