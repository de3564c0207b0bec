"""A gateway and a model server under requests that nobody should send: each is answered, none breaks anything."""

from __future__ import annotations

import http.client
import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import msgspec
import numpy as np
import pytest
from tests import hostile
from tests.hostile import Case, Requests
from tests.house import House, obey, running, trail

from interlock.model.oip_grpc import SERVICE
from interlock.model.signature import Signature
from interlock.predlog.record import Prediction
from interlock.registry.routes import Parameters

ANSWERS = {200, 202, 400, 404, 413, 415}
BROKEN = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE)
ID = "x-interlock-prediction-id"


@pytest.fixture(scope="module", params=["EVERY", "MATRIX"])
def attacked(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[House, Signature]]:
    """An endpoint with a model of all types, or of one matrix."""
    signature: Signature = getattr(hostile, request.param)
    house = House(tmp_path_factory.mktemp("hostile") / "house")
    found = hostile.publish(house, signature)
    house.approve(found)
    route = house.route({"champion": (found, 10_000)}, parameters=Parameters(timeout_second=60.0))
    with running(house.serve(found), house.gateway()):
        obey(house, route.revision)
        yield house, signature
    house.close()


class Client:
    """One connection, which is kept as long as the server keeps it."""

    def __init__(self, house: House) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", house.port, timeout=60)
        self.ids: list[str] = []

    def ask(self, case: Case) -> tuple[int, bytes]:
        """Status and body of the answer."""
        headers = {name: value.decode("latin-1") for name, value in case.headers.items()}
        self.connection.request("POST", case.path, case.body, headers)
        answer = self.connection.getresponse()
        body = answer.read()
        if (found := answer.headers.get(ID)) is not None:
            self.ids.append(found)
        return answer.status, body


class Neighbour(threading.Thread):
    """Asks one good question again and again."""

    def __init__(self, house: House, case: Case) -> None:
        super().__init__()
        self.client, self.case = Client(house), case
        self.over = threading.Event()
        self.scores: list[list[float]] = []

    def run(self) -> None:
        while not self.over.is_set():
            status, body = self.client.ask(self.case)
            assert status == 200, body
            self.scores.append(msgspec.json.decode(body)["outputs"][0]["data"])


def said(infer: Any, message: bytes) -> tuple[Any, list[str]]:
    """Code of a call, and the prediction's id."""
    try:
        call = infer.with_call(message, timeout=60)[1]
    except grpc.RpcError as error:
        call = error
    return call.code(), [value for key, value in call.trailing_metadata() or () if key == ID]


def seeds() -> list[object]:
    """One that is always the same, and in the long tests one that never is."""
    return [(1, 700), pytest.param(secrets.randbits(32), 10_000, marks=pytest.mark.long)]


@pytest.mark.parametrize(("seed", "count"), seeds(), ids=["known", "new"])
def test_whatever_comes_is_answered_and_logged_once(attacked: tuple[House, Signature], seed: int, count: int) -> None:
    house, signature = attacked
    before = [one for one in trail(house.project.journals) if isinstance(one, Prediction)]
    requests = Requests(signature, "flight-delay", seed)
    client, neighbour = Client(house), Neighbour(house, requests.good())
    statuses: Counter[int] = Counter()
    neighbour.start()
    try:
        for number in range(count):
            case = requests.next()
            where = f"request {number} of seed {seed}: {case.path} {case.headers} {case.body[:2000]!r}"
            try:
                status, body = client.ask(case)
            except (http.client.HTTPException, OSError) as error:
                pytest.fail(f"{error!r} instead of an answer to {where}")
            assert status in ANSWERS, f"{status} {body[:500]!r} to {where}"
            statuses[status] += 1
        with grpc.insecure_channel(f"127.0.0.1:{house.grpc_port}") as channel:
            infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
            for number in range(count // 4):
                message = requests.message()
                code, ids = said(infer, message)
                assert code not in BROKEN, f"{code} to message {number} of seed {seed}: {message!r}"
                client.ids += ids
    finally:
        neighbour.over.set()
        neighbour.join()
        client.connection.close()
        neighbour.client.connection.close()
    assert all(statuses[status] for status in (200, 202, 400, 413, 415)), statuses
    assert len(neighbour.scores) == len(neighbour.client.ids) > 10
    assert np.allclose(
        neighbour.scores, neighbour.scores[0], rtol=1e-9, atol=0.0
    )  # which batch a row is in changes the last bits
    kept = [one for one in trail(house.project.journals) if isinstance(one, Prediction)]
    logged = Counter(one.prediction_id for one in kept[len(before) :])
    assert logged == Counter([*client.ids, *neighbour.client.ids])
