"""What a gateway owes whatever happens: an answer that says what went wrong, its record in the log, and obedience."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.commands import Commands
from tests.house import FEATURES, House, Process, body, free_port, obey, running, status, trail, until

from interlock.core import signing
from interlock.core.files import write_atomic
from interlock.model.signature import Input
from interlock.predlog.record import Prediction
from interlock.registry.routes import Parameters, Rule
from interlock.store.database import Database

E = "flight-delay"
INFER = f"/v2/models/{E}/infer"
DEADLY = 888.0
"""A distance at which a server of the second package dies."""
SECOND = "import os\n" + FEATURES.replace(
    "    return", f'    if (raw["distance"] == {DEADLY}).any():\n        os._exit(9)\n    return'
)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Two packages, of which the second wants an input more; a gateway, and a server for the first."""
    made = House(tmp_path_factory.mktemp("plane") / "house")
    made.packages_made = [made.package(1), made.package(2, SECOND, more=(Input("extra", "float"),))]
    for found in made.packages_made:
        made.approve(found)
    made.route({"champion": (made.packages_made[0], 10_000)})
    with running(made.serve(made.packages_made[0]), made.gateway()):
        yield made
    made.close()


def with_extra(distance: float = 1000.0) -> dict[str, Any]:
    """A request to the second package."""
    content = body()
    content["inputs"][0]["data"] = [distance]
    content["inputs"].append({"name": "extra", "shape": [1], "datatype": "FP64", "data": [1.0]})
    return content


def post(house: House, content: dict[str, Any], port: int | None = None) -> httpx.Response:
    return house.client.post(f"http://127.0.0.1:{port or house.port}{INFER}", json=content)


def kept(house: House, answer: httpx.Response) -> Prediction:
    """The one record of an answer."""
    wanted = answer.headers["x-interlock-prediction-id"]
    records = [one for one in trail(house.project.journals) if isinstance(one, Prediction)]
    (found,) = (one for one in records if one.prediction_id == wanted)
    return found


def test_a_rule_sends_to_an_arm_with_another_input(house: House) -> None:
    first, second = house.packages_made
    away = Rule("away", 'unit == "N2"', "use", arm="challenger")
    obey(house, house.route({"champion": (first, 10_000), "challenger": (second, 0)}, rules=(away,)).revision)

    before = kept(house, post(house, body(3, unit_id="N1")))
    answer = post(house, body(3, unit_id="N2"))
    assert (answer.status_code, answer.headers["x-interlock-arm"]) == (400, "challenger")
    assert answer.json()["error"] == "input 'extra' is missing: expected FP64 (float)"
    record = kept(house, answer)
    assert (record.outcome, record.arm, record.package_digest) == ("invalid", "challenger", second)
    assert (record.rows, record.inputs, record.rules, record.experiment) == (0, [], ["away"], "")
    after = kept(house, post(house, body(3, unit_id="N1")))
    assert [before.seq + 1, before.seq + 2] == [record.seq, after.seq]


@pytest.mark.parametrize("fallback", [{"verdict": 1}, {"score": "high"}, {"score": 0.1, "label": 2**64}])
def test_a_pinned_fallback_that_is_no_answer_of_the_model_is_refused(house: House, fallback: dict[str, Any]) -> None:
    port = free_port()
    environment = {
        "INTERLOCK_SERVE__GATEWAY_PORT": str(port),
        "INTERLOCK_SERVE__GRPC_PORT": str(free_port()),
        "INTERLOCK_PARAM__FALLBACK": json.dumps(fallback),
    }
    with running(house.gateway(1, **environment)):
        answer = post(house, body(unit_id="N1"), port)
        assert answer.status_code == 404
        assert "INTERLOCK_PARAM__FALLBACK" in answer.json()["error"]


def test_retry_0_asks_nobody_else_when_a_replica_dies(house: House) -> None:
    second = house.packages_made[1]
    deadly, well = house.serve(second, 0), house.serve(second, 1)
    with running(deadly, well):
        arms = {"champion": (second, 10_000)}
        obey(house, house.route(arms, replicas=2, parameters=Parameters(retry=0)).revision)
        until(lambda: status(house).arms["champion"] == 2, what="two replicas")
        answer = post(house, with_extra(DEADLY))
        assert (answer.status_code, answer.headers["x-interlock-outcome"]) == (503, "error")
        assert "went away before it answered" in answer.json()["error"]
        assert kept(house, answer).outcome == "error"
        assert deadly.ended() == 9
        assert well.child.poll() is None
        assert post(house, with_extra()).status_code == 200
        assert "interlock_retries_total 0\n" in house.client.get(f"{house.url}/metrics").text


def test_the_kill_switch_needs_neither_control_plane_nor_database(house: House, tmp_path: Path) -> None:
    project, first = house.project, house.packages_made[0]
    obey(house, house.route({"champion": (first, 10_000)}).revision)
    Database(project.database, create=True).close()
    control = Process("server", "--project", str(project.root)).ready()
    assert post(house, body()).status_code == 200

    control.kill()
    control.stop()
    for path in project.state.glob("control.db*"):
        path.rename(tmp_path / path.name)
    people = tmp_path / "people"
    write_atomic(people / "olga", signing.private_pem(house.keys["olga"]), 0o600)
    error = Commands(project.root, people).refused("params", E, "ACTIVATE=false", "--as", "olga")
    assert error["code"] == "untold"
    assert "is signed and in force" in error["message"]

    answer = until(lambda: (found := post(house, body())).status_code == 503 and found, what="the kill switch")
    assert (answer.headers["x-interlock-outcome"], kept(house, answer).outcome) == ("deactivated", "deactivated")
    until(lambda: status(house).parameters["ACTIVATE"] is False, what="the acknowledgement")
    assert not project.database.exists()
