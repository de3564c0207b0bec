"""NVIDIA's tritonclient, and a plain gRPC channel, against a real gateway and a real model server."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import msgspec
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tests.house import INPUTS, House, body, free_port, obey, rows, running, trail, until
from tritonclient.utils import InferenceServerException

from interlock.model import inference_pb2 as pb
from interlock.predlog.record import Prediction

OPENAPI = msgspec.json.decode((Path(__file__).parents[2] / "openapi" / "open_inference_rest.json").read_bytes())
MODEL = "flight-delay"
NUMPY = {"FP64": np.float64, "INT64": np.int64, "BYTES": np.object_}


class Server(msgspec.Struct):
    """Where one of the two servers listens, and a version of its model."""

    kind: str
    http: str
    grpc: str
    version: str


@pytest.fixture(scope="module")
def model_server(served: House) -> Iterator[Server]:
    http, rpc = free_port(), free_port()
    found = served.packages_made[0]
    with running(served.serve(found, 7, "--port", str(http), "--grpc-port", str(rpc))):
        yield Server("model server", f"127.0.0.1:{http}", f"127.0.0.1:{rpc}", found)


@pytest.fixture(params=["gateway", "model server"])
def server(request: pytest.FixtureRequest, served: House, model_server: Server) -> Server:
    if request.param == "model server":
        return model_server
    route = served.route({"champion": (served.packages_made[0], 10_000)}, allow_version_pin=True)
    obey(served, route.revision)
    return Server("gateway", f"127.0.0.1:{served.port}", f"127.0.0.1:{served.grpc_port}", "1")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """tritonclient's HTTP client closes itself when it is collected, which gevent allows in its own thread only."""
    yield
    gc.collect()


@contextlib.contextmanager
def client(library: Any, server: Server) -> Iterator[Any]:
    one = library.InferenceServerClient(server.http if library is tritonclient.http else server.grpc)
    try:
        yield one
    finally:
        one.close()


WHOLE = next(seed for seed in range(99) if not np.isnan(rows(3, seed)[1]).any())
"""Three rows without a missing value: tritonclient's JSON would say NaN, which is no JSON."""


def triton_inputs(library: Any, count: int, seed: int = 0, **how: Any) -> list[Any]:
    inputs = []
    for spec, array in zip(INPUTS, rows(count, seed), strict=True):
        inputs.append(library.InferInput(spec.name, [count], spec.datatype))
        inputs[-1].set_data_from_numpy(array.astype(NUMPY[spec.datatype]), **how)
    return inputs


def by_json(server: Server, content: Any, path: str = "") -> httpx.Response:
    return httpx.post(f"http://{server.http}/v2/models/{MODEL}{path}/infer", json=content)


def outputs(answer: httpx.Response) -> dict[str, list[Any]]:
    assert answer.status_code == 200, answer.text
    return {output["name"]: output["data"] for output in answer.json()["outputs"]}


LIBRARIES = pytest.mark.parametrize("library", [tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])


@LIBRARIES
def test_tritonclient_works_unchanged(server: Server, library: Any) -> None:
    expected = outputs(by_json(server, body(5)))
    as_json = {"as_json": True} if library is tritonclient.grpc else {}
    with client(library, server) as one:
        assert one.is_server_live()
        assert one.is_server_ready()
        told = one.get_server_metadata(**as_json)
        assert (told["name"], told["extensions"]) == ("interlock", ["binary_tensor_data"])
        for version in ("", server.version):
            assert one.is_model_ready(MODEL, version)
            told = one.get_model_metadata(MODEL, version, **as_json)
            assert [(given["name"], given["datatype"]) for given in told["inputs"]] == [
                (spec.name, spec.datatype) for spec in INPUTS
            ]
            assert server.version in told["versions"]
            answer = one.infer(MODEL, triton_inputs(library, 5), model_version=version, request_id="mine")
            assert {name: answer.as_numpy(name).tolist() for name in expected} == expected
            said = answer.get_response()
            assert (said["id"] if isinstance(said, dict) else said.id) == "mine"
        only = one.infer(MODEL, triton_inputs(library, 5), outputs=[library.InferRequestedOutput("label")])
        assert only.as_numpy("score") is None
        assert only.as_numpy("label").tolist() == expected["label"]
        with pytest.raises(InferenceServerException, match="'distance' is missing"):
            one.infer(MODEL, triton_inputs(library, 5)[1:])
        for name, version in (("nobody", ""), (MODEL, "99")):
            with pytest.raises(InferenceServerException, match=name if name == "nobody" else version):
                one.get_model_metadata(name, version)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_questions_may_come_compressed(server: Server, compression: str, binary: bool) -> None:
    expected = outputs(by_json(server, body(3, WHOLE)))
    with client(tritonclient.http, server) as one:
        inputs = triton_inputs(tritonclient.http, 3, WHOLE, binary_data=binary)
        answer = one.infer(
            MODEL, inputs, request_compression_algorithm=compression, response_compression_algorithm=compression
        )
    assert {name: answer.as_numpy(name).tolist() for name in expected} == expected


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_binary_tensors_in_both_directions(server: Server, binary_in: bool, binary_out: bool | None) -> None:
    """None: as `binary_data_output` of the whole request, which is what tritonclient sends without outputs."""
    expected = outputs(by_json(server, body(3, WHOLE)))
    wanted = None
    if binary_out is not None:
        ask = tritonclient.http.InferRequestedOutput
        wanted = [ask("score", binary_data=binary_out), ask("label", binary_data=not binary_out)]
    with client(tritonclient.http, server) as one:
        answer = one.infer(MODEL, triton_inputs(tritonclient.http, 3, WHOLE, binary_data=binary_in), outputs=wanted)
    assert {name: answer.as_numpy(name).tolist() for name in expected} == expected
    binary = {
        output["name"]
        for output in answer.get_response()["outputs"]
        if "binary_data_size" in output.get("parameters", {})
    }
    assert binary == ({"score", "label"} if binary_out is None else {"score" if binary_out else "label"})


def request_of(content: dict[str, Any], **more: Any) -> Any:
    """A JSON request as a message with typed contents."""
    fields = {"FP64": "fp64_contents", "INT64": "int64_contents", "BYTES": "bytes_contents"}
    message = pb.ModelInferRequest(model_name=MODEL, **more)
    for tensor in content["inputs"]:
        values = [value.encode() if isinstance(value, str) else value for value in tensor["data"]]
        values = [np.nan if value is None else value for value in values]
        described = {key: tensor[key] for key in ("name", "datatype", "shape")}
        message.inputs.add(**described, contents={fields[tensor["datatype"]]: values})
    for key, value in content.get("parameters", {}).items():
        message.parameters[key].string_param = value
    return message


def call(server: Server, message: Any, method: str = "ModelInfer", **metadata: str) -> tuple[Any, dict[str, str]]:
    """What a plain channel gets: the answer, or the error; and trailing metadata."""
    with grpc.insecure_channel(server.grpc) as channel:
        ask = channel.unary_unary(
            f"/inference.GRPCInferenceService/{method}",
            request_serializer=lambda one: one if isinstance(one, bytes) else one.SerializeToString(),
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        try:
            answer, ended = ask.with_call(
                message, metadata=[(key.replace("_", "-"), value) for key, value in metadata.items()]
            )
        except grpc.RpcError as error:
            answer = ended = error
        return answer, dict(ended.trailing_metadata() or ())


def last(house: House) -> Prediction:
    found = [record for record in trail(house.project.journals) if isinstance(record, Prediction)]
    return max(found, key=lambda record: record.prediction_id)


def test_typed_contents_are_answered_in_kind(server: Server) -> None:
    expected = outputs(by_json(server, body(4)))
    answer, _ = call(server, request_of(body(4), id="7"))
    assert answer.id == "7"
    assert not answer.raw_output_contents
    assert list(answer.outputs[0].contents.fp64_contents) == expected["score"]
    assert list(answer.outputs[1].contents.bool_contents) == expected["label"]
    assert answer.parameters["package_digest"].string_param.startswith("sha256:")


def test_the_gateway_treats_grpc_as_it_treats_rest(champion: House) -> None:
    gateway = Server("gateway", "", f"127.0.0.1:{champion.grpc_port}", "1")
    answer, told = call(gateway, request_of(body(2, unit_id="N9")), x_interlock_event_time="2013-06-01T00:00:00Z")
    kept = last(champion)
    assert told["x-interlock-prediction-id"] == kept.prediction_id == answer.parameters["prediction_id"].string_param
    assert (told["x-interlock-arm"], told["x-interlock-outcome"]) == ("champion", "answered")
    assert (kept.unit_id, kept.unit_source, kept.event_time, kept.rows) == ("N9", "client", 1_370_044_800_000_000, 2)
    assert kept.outputs[0] == list(answer.outputs[0].contents.fp64_contents)
    wrong = body(1)
    wrong["inputs"][0]["data"] = [np.nan]
    for message, version in ((request_of(wrong), ""), (request_of(body(1), model_version="1"), "1")):
        error, told = call(gateway, message)
        code = grpc.StatusCode.NOT_FOUND if version else grpc.StatusCode.INVALID_ARGUMENT
        assert error.code() == code
        assert told["x-interlock-prediction-id"] == last(champion).prediction_id
        assert (told["x-interlock-outcome"], last(champion).outcome) == ("invalid", "invalid")


def test_what_is_no_request_gets_a_clear_code(server: Server) -> None:
    unknown = request_of(body(1))
    unknown.model_name = "nobody"
    long = request_of(body(1))
    long.inputs[0].name = "ö" * 100_000
    cases = [
        (b"\xff" * 9, grpc.StatusCode.INVALID_ARGUMENT),
        (request_of(body(1)).SerializeToString()[:-3], grpc.StatusCode.INVALID_ARGUMENT),
        (unknown, grpc.StatusCode.NOT_FOUND),
        (long, grpc.StatusCode.INVALID_ARGUMENT),
        (request_of(body(1), id="x" * 10 * 1024 * 1024), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ]
    for message, code in cases:
        error, _ = call(server, message)
        assert error.code() == code, error
    assert call(server, b"", "ModelConfig")[0].code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_nan_is_a_missing_value_where_one_may_be(server: Server) -> None:
    content = body(1)
    content["inputs"][1]["data"] = [None]
    expected = outputs(by_json(server, content))["score"]
    with client(tritonclient.http, server) as one:
        inputs = triton_inputs(tritonclient.http, 1)
        inputs[1].set_data_from_numpy(np.array([np.nan]))
        assert one.infer(MODEL, inputs).as_numpy("score").tolist() == expected
        inputs[0].set_data_from_numpy(np.array([np.nan]))
        with pytest.raises(InferenceServerException, match=r"'distance': expected FP64 \(float, not null\), got nan"):
            one.infer(MODEL, inputs)


def test_a_gateway_that_leaves_loses_no_call(champion: House) -> None:
    """Two workers on one port; under load one is told to stop."""
    request, leaving = request_of(body(1)).SerializeToString(), champion.gateway(1)
    status, over, calls = champion.project.gateways / "1.json", threading.Event(), []

    def load() -> None:
        own = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"127.0.0.1:{champion.grpc_port}", options=own) as channel:
            ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            while not over.is_set():
                calls.append(ask(request))

    try:
        leaving.ready()
        until(status.exists)
        until(lambda: msgspec.json.decode(status.read_bytes())["endpoints"][MODEL]["arms"]["champion"])
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            loads = [pool.submit(load) for _ in range(8)]
            until(lambda: len(calls) > 100)
            leaving.stop()
            over.set()
            for one in loads:
                one.result()
    finally:
        over.set()
        leaving.stop()


def schema_of(answer: dict[str, Any]) -> dict[str, Any]:
    described = OPENAPI["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    reference = described["content"]["application/json"]["schema"]["$ref"]
    found: dict[str, Any] = OPENAPI["components"]["schemas"][reference.rpartition("/")[2]]
    return found


@pytest.mark.parametrize("path", OPENAPI["paths"])
def test_openapi_paths_are_answered_as_described(server: Server, path: str) -> None:
    url = f"http://{server.http}{path.format(model_name=MODEL, model_version=server.version)}"
    (method,) = OPENAPI["paths"][path].keys() - {"parameters"}
    answers = OPENAPI["paths"][path][method]["responses"]
    answer = httpx.request(method, url, content=json.dumps(body(1)) if method == "post" else None)
    assert answer.status_code == 200, answer.text
    schema = schema_of(answers["200"])
    assert set(schema["required"]) <= answer.json().keys()
    unknown = httpx.request(method, url.replace(MODEL, "nobody"), content=json.dumps(body(1)))
    if "nobody" in str(unknown.url):
        assert unknown.status_code == 404
        assert set(schema_of(answers.get("404") or answers["default"])["required"]) <= unknown.json().keys()
