"""From a signed decision diff to live traffic: model servers, a gateway, a recorder, and commands as people type them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.gate import PASSED
from tests.house import House, obey, rows, running, until
from tests.trees import INPUTS, SIGNATURE, package

from interlock import cli
from interlock.core import signing
from interlock.core.clock import SystemClock, iso
from interlock.core.files import write_atomic
from interlock.core.hashing import canonical
from interlock.model import oip
from interlock.model.columns import to_lists
from interlock.model.package import read_manifest
from interlock.registry import evaluations
from interlock.registry.gateways import read_live
from interlock.registry.packages import PackageStore
from interlock.registry.versions import Versions
from interlock.store.database import Database

E = "flight-delay"
ROWS = 60
Run = Callable[..., Any]


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """Two versions, which differ about near flights of one carrier, and the first one's approval."""
    made = House(tmp_path / "project")
    settings = made.project.config.read_text()
    made.project.config.write_text(f'slices = ["carrier"]\n{settings}[endpoint]\nthreshold = 0.45\n')
    for name, key in made.keys.items():
        write_atomic(tmp_path / "people" / name, signing.private_pem(key), 0o600)
    monkeypatch.setenv("INTERLOCK_KEYS_DIR", str(tmp_path / "people"))
    monkeypatch.setenv("INTERLOCK_PROJECT", str(made.project.root))
    database = Database(made.project.database, create=True)
    versions = Versions(database, PackageStore(made.project.packages))
    made.packages_made = [package(made, seed) for seed in (0, 4)]
    for found in made.packages_made:
        manifest = read_manifest(versions.packages.find(found), found)
        with database.write() as connection:
            versions.register(connection, replace(manifest, lineage=replace(manifest.lineage, run=found)), found)
            report = canonical({**PASSED, "package": found})
            evaluations.store(connection, report, found, None, iso(SystemClock().now()))
    database.close()
    yield made
    made.close()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str) -> Any:
        capsys.readouterr()
        code = cli.run([*words, "--json"])
        said = json.loads(capsys.readouterr().out)
        assert code == 0, said
        return said

    return call


def shadow_counts(house: House) -> tuple[int, int]:
    """Questions to the shadow that it has answered, and all that came to an end; on a busy machine it steps back."""
    lines = house.client.get(f"{house.url}/metrics").text.splitlines()
    found = [line for line in lines if line.startswith("interlock_shadow_requests_total{")]
    ended = {line: int(float(line.rpartition(" ")[2])) for line in found}
    return sum(n for line, n in ended.items() if 'outcome="answered"' in line), sum(ended.values())


def shadow_ended_more(house: House, before: int) -> bool:
    return shadow_counts(house)[1] > before


def ask(house: House, run: Run, seed: int, scale: float = 1.0, requests: int = 30, *, shadowed: bool = True) -> None:
    """Requests of 60 rows, until so many, with the shadow's answers, are in the warehouse.

    `scale`: of the distance, as a client mistakes its unit.
    """
    before = answered = shadow_counts(house)[0]
    for number in count():
        if (answered - before if shadowed else number) >= requests:
            break
        ended = shadow_counts(house)[1]
        arrays = rows(ROWS, seed + number)[:4]
        arrays[0] = arrays[0] * scale
        inputs = oip.write_inputs(SIGNATURE, to_lists(INPUTS, arrays))
        answer = house.client.post(f"{house.url}/v2/models/{E}/infer", json={"inputs": inputs})
        assert answer.status_code == 200
        if shadowed:
            until(partial(shadow_ended_more, house, ended), what="the shadow")
            answered = shadow_counts(house)[0]
    until(lambda: cli.run(["predictions", E, "--json"]) == 0, what="the log")
    assert run("reconcile", E, "--wait", "20")["whole"]


def test_what_was_signed_is_held_against_what_comes(house: House, run: Run) -> None:
    first, second = house.packages_made
    run("approve", f"{E}:1", "--reason", "fine", "--as", "rob")
    run("deploy", f"{E}:1", "--to", E, "--as", "champion", "--as", "olga")
    with running(house.serve(first, 1), house.serve(first, 1, shadow=True), house.gateway(), house.recorder()):
        obey(house, 1)
        ask(house, run, seed=1000, shadowed=False)
        diff = run("diff", f"{E}:1", f"{E}:2")
        predicted = diff["diff"]["changes"]["changed"]["share"]
        assert 0.1 < predicted < 0.25
        run("approve", f"{E}:2", "--reason", "seen", "--diff", diff["digest"], "--as", "rob")
        new = ("--as", "champion", "--keep-shadow", "--as", "olga", "--no-wait")
        assert run("deploy", f"{E}:2", "--to", E, *new)["shadows"] == {"shadow": f"{E}:1"}
        with running(house.serve(second, 1)):
            obey(house, 2)
            until(lambda: read_live(house.project.gateways)[0].endpoints[E].arms.get("shadow"), what="the shadow")
            as_signed(house, run, diff["digest"], predicted)
            for seed, requests, state in (
                (3000, 30, "PENDING"),
                (4000, 5, "FIRING"),
            ):  # kilometres became miles: more flights are near
                ask(house, run, seed, 0.3, requests)
                run("monitors", E, "--run")
                (alert,) = run("alerts")["items"]
                assert (alert["monitor"], alert["state"]) == ("changed-decisions:hour", state)
                assert f"interlock realised {E}" in alert["first_check"]


def as_signed(house: House, run: Run, digest: str, predicted: float) -> None:
    """Traffic as the diff had it raises no alert."""
    ask(house, run, seed=2000)
    (told,) = run("realised", E)["items"]
    assert (told["release"], told["diff"], told["verdict"]) == (f"{E}:1 → {E}:2", digest, "ok")
    every, *parts = told["parts"]
    assert every["predicted"]["share"] == predicted
    assert every["realised"]["n"] == told["pairs"] > 500
    assert {"direction:true → false", "slice:carrier = UA", "slice:carrier = AA"} <= {one["what"] for one in parts}
    assert {(one["before"], one["after"]) for one in told["examples"]} == {("true", "false")}
    run("monitors", E, "--run")
    assert run("alerts")["items"] == []
