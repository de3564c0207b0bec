"""A real gateway before real model servers with what the base install holds: no pandas, no scikit-learn, no warehouse."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import httpx
import msgspec
import numpy as np
import pytest
from tests import trees
from tests.house import House, free_port, obey, running, trail, until
from tests.property.test_oip_codecs import binary

from interlock.core.assignment import bucket
from interlock.model import oip_binary, oip_grpc
from interlock.predlog.record import Prediction
from interlock.registry.routes import Parameters, Rule

MODEL = "flight-delay"
INFER = f"/v2/models/{MODEL}/infer"
Tensors = list[dict[str, Any]]


class Door(msgspec.Struct):
    """Where a gateway, or a model server, listens."""

    http: str
    rpc: str

    def post(self, path: str, content: bytes, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.post(self.http + path, content=content, headers=named)

    def json(self, tensors: Tensors) -> list[float] | str:
        return scores(self.post(INFER, msgspec.json.encode({"inputs": tensors})))

    def binary(self, tensors: Tensors) -> list[float] | str:
        body, size = binary(tensors)
        return scores(self.post(INFER, body, **{oip_binary.HEADER: size}))

    def raw(self, tensors: Tensors) -> list[float] | str:
        return self.call(oip_grpc.question(MODEL, tensors, raw=True))

    def typed(self, tensors: Tensors) -> list[float] | str:
        return self.call(oip_grpc.question(MODEL, tensors, raw=False))

    def call(self, message: bytes) -> list[float] | str:
        with grpc.insecure_channel(self.rpc) as channel:
            try:
                answer = channel.unary_unary(f"/{oip_grpc.SERVICE}/ModelInfer")(message)
            except grpc.RpcError as error:
                return str(error.details())
        return oip_grpc.answers(answer)[0].data


CODECS: list[Callable[[Door, Tensors], list[float] | str]] = [Door.json, Door.binary, Door.raw, Door.typed]


def scores(answer: httpx.Response) -> list[float] | str:
    """Of an answer in JSON, or its error."""
    content = answer.json()
    found: list[float] | str = content["outputs"][0]["data"] if answer.status_code == 200 else content["error"]
    return found


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Door]]:
    """Two approved packages behind a gateway, and the first one's model server with doors of its own."""
    house = House(tmp_path_factory.mktemp("base"))
    house.packages_made = [trees.package(house, seed) for seed in (1, 2)]
    for found in house.packages_made:
        house.approve(found)
    first, second = house.packages_made
    http, rpc = free_port(), free_port()
    with running(
        house.serve(first, 0, "--port", str(http), "--grpc-port", str(rpc)), house.serve(second, 0), house.gateway()
    ):
        yield house, Door(f"http://127.0.0.1:{http}", f"127.0.0.1:{rpc}")
    house.close()


@pytest.fixture
def house(doors: tuple[House, Door]) -> House:
    return doors[0]


@pytest.fixture
def server(doors: tuple[House, Door]) -> Door:
    return doors[1]


@pytest.fixture
def gateway(house: House) -> Door:
    return Door(house.url, f"127.0.0.1:{house.grpc_port}")


def route(house: House, **more: Any) -> None:
    """The first package as champion of all traffic."""
    obey(house, house.route({"champion": (house.packages_made[0], 10_000)}, **more).revision)


def last(house: House) -> Prediction:
    found = [record for record in trail(house.project.journals) if isinstance(record, Prediction)]
    return max(found, key=lambda record: record.prediction_id)


def test_every_codec_at_both_doors_answers_as_the_trees_say(house: House, gateway: Door, server: Door) -> None:
    route(house)
    lists = trees.lists(40)
    expected = [trees.score(1, distance, temp, carrier) for distance, temp, _, carrier in zip(*lists, strict=True)]
    assert len(set(expected)) == 4
    names = [spec.name for spec in trees.INPUTS]
    table = list(zip(*lists, strict=True))
    text = io.StringIO()
    csv.writer(text).writerows([names, *table])
    for door in (gateway, server):
        for codec in CODECS:
            assert codec(door, trees.tensors(40)) == pytest.approx(expected, rel=1e-12), codec
        split = msgspec.json.encode({"dataframe_split": {"columns": names, "data": table}})
        for body, kind in ((split, "application/json"), (text.getvalue().encode(), "text/csv")):
            found = door.post("/invocations", body, content_type=kind).json()["predictions"]
            assert [row["score"] for row in found] == pytest.approx(expected, rel=1e-12)


def test_arms_parameters_and_rules_hold_and_are_logged(house: House, gateway: Door) -> None:
    near_united = [
        {**one, "data": [value]} for one, value in zip(trees.tensors(1), (500.0, 20.0, 1, "UA"), strict=True)
    ]
    near = [*near_united[:3], {**near_united[3], "data": ["AA"]}]
    first, second = house.packages_made
    refuse = Rule("no-cold", "input.temp < 0.0", "refuse", reason="too cold")
    arms = {"champion": (first, 5000), "challenger": (second, 5000)}
    obey(house, house.route(arms, parameters=Parameters(threshold=0.44), rules=(refuse,)).revision)
    for unit in ("N1", "N2", "N3", "N4", "N5"):
        seed = 1 if bucket("salt", unit) < 5000 else 2
        answer = gateway.post(INFER, msgspec.json.encode({"inputs": near_united, "parameters": {"unit_id": unit}}))
        expected = trees.score(seed, 500.0, 20.0, "UA")
        assert answer.json()["outputs"][0]["data"] == pytest.approx([expected], rel=1e-12)
        assert answer.json()["outputs"][1]["data"] == [expected >= 0.44]
        kept = last(house)
        assert (kept.prediction_id, kept.unit_id) == (answer.headers["x-interlock-prediction-id"], unit)
        assert (kept.package_digest, kept.outcome) == (house.packages_made[seed - 1], "answered")
        assert kept.outputs == [one["data"] for one in answer.json()["outputs"]]
    cold = [*near[:1], {**near[1], "data": [-1.0]}, *near[2:]]
    assert [codec(gateway, cold) for codec in CODECS] == ["too cold"] * len(CODECS)
    assert (last(house).outcome, last(house).rules) == ("refused", ["no-cold"])
    route(house, parameters=Parameters(activate=False))
    assert gateway.post(INFER, msgspec.json.encode({"inputs": near})).status_code == 503
    assert last(house).outcome == "deactivated"


def test_what_nobody_signed_is_not_served(house: House, gateway: Door) -> None:
    route(house)
    unsigned = trees.package(house, 3)
    refused = house.serve(unsigned)
    assert refused.ended() == 1
    assert "without an approval" in refused.text
    house.route({"champion": (unsigned, 10_000)})
    status = house.project.gateways / "0.json"
    until(lambda: "no approval" in str(msgspec.json.decode(status.read_bytes())["endpoints"][MODEL]["error"]))
    assert not isinstance(gateway.json(trees.tensors(1)), str)
    assert last(house).package_digest == house.packages_made[0]


NARROW = {"FP64": ("FP32", np.float32), "INT64": ("INT16", np.int16)}


def narrow(tensors: Tensors) -> Tensors:
    """The same rows as a client of 32 and 16 bits holds them; its JSON says the shortest decimals."""
    made = []
    for one in tensors:
        name, kind = NARROW.get(one["datatype"], (one["datatype"], None))
        data = [value if value is None or kind is None else float(str(kind(value))) for value in one["data"]]
        data = [int(value) for value in data] if name == "INT16" else data
        made.append(one | {"datatype": name, "data": data})
    return made


def widened(tensors: Tensors) -> Tensors:
    """What such a client means, in the signature's datatypes."""
    return [
        one | {"data": [value if value is None else float(np.float32(value)) for value in one["data"]]}
        if one["datatype"] == "FP64"
        else one
        for one in tensors
    ]


def count(house: House, name: str) -> int:
    line = f'interlock_narrower_inputs_total{{endpoint="{MODEL}",input="{name}"}} '
    text = house.client.get(f"{house.url}/metrics").text
    return int(text.split(line)[1].split("\n")[0]) if line in text else 0


def test_narrower_tensors_are_refused_unless_allowed_and_then_counted(
    house: House, gateway: Door, server: Door
) -> None:
    """1500.3 in 32 bits is over the trees' boundary, and under it in 64: the answers tell what was predicted on."""
    wide = trees.tensors(8)
    wide[0]["data"][0] = 1500.3
    route(house)
    for codec in CODECS:
        assert "expected datatype FP64, got FP32" in codec(gateway, narrow(wide))
    exact, rounded = gateway.json(wide), gateway.json(widened(wide))
    assert exact[0] != rounded[0]
    route(house, allow_narrower=True)
    before = count(house, "distance"), count(house, "stops")
    for codec in CODECS:
        assert codec(gateway, narrow(wide)) == rounded, codec
        kept = np.frombuffer(last(house).inputs[0] or b"")  # type: ignore[arg-type]  # a float column travels as a buffer
        assert kept.tolist() == widened(wide)[0]["data"]
        assert codec(gateway, wide) == exact
        assert "expected datatype FP64, got FP32" in codec(server, narrow(wide))
    assert (count(house, "distance"), count(house, "stops")) == (before[0] + 4, before[1] + 4)
    assert count(house, "carrier") == 0
