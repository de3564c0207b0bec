"""Users' code in a model server: whatever it raises is one request's failure, or a clear end of the process, never silence."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from tests.house import FEATURES, SIGNATURE, House, body, free_port, obey, rows, running
from tests.wire_lab import together

from interlock.model import inference_pb2 as pb
from interlock.model.manifest import Runtime
from interlock.model.runtimes import predictor
from interlock.registry.routes import replica_name

INFER = "/v2/models/flight-delay/infer"
RAISES = """
    class Own(BaseException):
        pass

    class Unspeakable(Exception):
        def __str__(self):
            raise Unspeakable

    raised = {666.0: SystemExit(3), 667.0: KeyboardInterrupt(), 668.0: Own("mine"), 669.0: Unspeakable()}
    for distance in DISTANCES:
        if distance in raised:
            raise raised[distance]
"""
SAID = {666.0: "SystemExit: 3", 667.0: "KeyboardInterrupt", 668.0: "Own: mine"}
PLAIN = FEATURES.replace("666.0", "-1.0")
HERE = 'sys.argv[0].endswith("model_server.py")'
"""True in a model server only: the package is made in the process of the tests."""


def raising_features() -> str:
    head = "def flight_features(raw):\n"
    return FEATURES.replace(head, head + RAISES.replace("DISTANCES", 'raw["distance"]'))


def raising_class(house: House) -> str:
    """A package whose model is a class of the user's own."""
    text = RAISES.replace("DISTANCES", 'frame["distance"]').replace("\n", "\n    ")
    source = f"class Mean:\n    def predict(self, frame):{text}\n        return 0.0 * frame['distance'] + self.mean\n"
    arrays = io.BytesIO()
    np.savez(arrays, allow_pickle=False)
    files = {
        predictor.SOURCE: f"{source}\n\n{predictor.ENTRY} = Mean\n".encode(),
        predictor.STATE: b'{"mean": 0.25}',
        predictor.ARRAYS: arrays.getvalue(),
    }
    raw = rows(40)
    made = Runtime("predictor", predictor.SOURCE, code=predictor.SOURCE)
    columns = ("distance", "temp", "stops", "is_ua", "hour")
    return house.publish(SIGNATURE, made, files, PLAIN.encode(), columns, raw, [True, False] * 20)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("code") / "house")
    made.packages_made = [made.package(1, raising_features()), raising_class(made)]
    for found in made.packages_made:
        made.approve(found)
    yield made
    made.close()


def at(distance: float) -> dict[str, Any]:
    content = body()
    content["inputs"][0]["data"] = [distance]
    return content


@pytest.mark.parametrize("kind", [0, 1], ids=["feature function", "predictor"])
def test_whatever_a_model_raises_is_one_request_s_failure(house: House, kind: int) -> None:
    found, port = house.packages_made[kind], free_port()
    with running(house.serve(found, kind, "--port", str(port))), httpx.Client(timeout=20) as client:
        url = f"http://127.0.0.1:{port}"
        for distance, said in SAID.items():
            answer = client.post(url + INFER, json=at(distance))
            assert answer.status_code == 500
            assert said in answer.json()["error"]
        assert client.post(url + INFER, json=at(100.0)).status_code == 200
        path = house.project.sockets / replica_name(found, kind)
        answered = together(path, [100.0, 666.0, 200.0, 667.0, 668.0, 300.0])
        assert sorted(answered.failures) == [1, 3, 4]
        numbers = np.frombuffer(answered.numbers)
        assert np.isfinite(numbers).tolist() == [True, False, True, False, False, True]
        assert client.get(f"{url}/readyz").status_code == 200


def test_a_model_that_cannot_be_asked_any_more_ends_its_server(house: House) -> None:
    """An error that cannot even be told is nobody's answer: who started the server must hear of it."""
    port, rpc = free_port(), free_port()
    server = house.serve(house.packages_made[0], 5, "--port", str(port), "--grpc-port", str(rpc))
    with running(server), grpc.insecure_channel(f"127.0.0.1:{rpc}") as channel:
        ready = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")
        assert pb.ServerReadyResponse.FromString(ready(b"")).ready
        with pytest.raises(httpx.TransportError):
            httpx.post(f"http://127.0.0.1:{port}{INFER}", json=at(669.0), timeout=20)
        assert server.ended() == 1
    assert json.loads(server.text.strip().splitlines()[-1])["code"] == "model_ended"


@pytest.mark.parametrize("when", ["loaded", "warmed up"])
def test_code_that_leaves_when_the_server_starts_is_named(house: House, when: str) -> None:
    leaves = f"if {HERE}:\n    sys.exit(0)\n"
    head = "def flight_features(raw):\n"
    if when == "loaded":
        source = f"import sys\n\n{leaves}{FEATURES}"
    else:
        source = "import sys\n" + FEATURES.replace(head, head + "    " + leaves.replace("\n    ", "\n        "))
    found = house.package(7, source)
    house.approve(found)
    server = house.serve(found)
    assert server.ended() == 1, server.text
    line = json.loads(server.text.strip().splitlines()[-1])
    assert line["code"] == {"loaded": "recipe_failed", "warmed up": "prediction_failed"}[when]
    assert "SystemExit: 0" in line["message"]


def test_a_gateway_s_clients_hear_of_it_at_once(house: House) -> None:
    found = house.packages_made[0]
    route = house.route({"champion": (found, 10_000)})
    with running(house.serve(found), house.gateway()):
        obey(house, route.revision)
        answer = house.client.post(house.url + INFER, json=at(666.0))
        assert (answer.status_code, answer.headers["x-interlock-outcome"]) == (500, "error")
        assert "SystemExit" in answer.json()["error"]
        assert house.client.post(house.url + INFER, json=at(100.0)).status_code == 200
