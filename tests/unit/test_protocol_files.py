"""proto/ and openapi/ say what the code says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from tritonclient.grpc import service_pb2 as triton

from interlock.core.http import GRPC, STATUS
from interlock.model import inference_pb2, oip
from interlock.model.oip_binary import BinaryOutput

REPOSITORY = Path(__file__).parents[2]
OPENAPI = msgspec.json.decode((REPOSITORY / "openapi" / "open_inference_rest.json").read_bytes())


def test_the_generated_messages_are_those_of_the_proto(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="the generator comes with the dev extra")
    subprocess.run([sys.executable, REPOSITORY / "proto" / "generate.py", tmp_path], check=True)
    made = (tmp_path / "inference_pb2.py").read_text()
    kept = (REPOSITORY / "src" / "interlock" / "model" / "inference_pb2.py").read_text()
    assert made == kept, "after a change of proto/inference.proto: make generate"


def fields(message: Any) -> dict[str, Any]:
    """Number, type and repetition of every field, messages inside included."""
    found = {f"{message.name}.{one.name}": (one.number, one.type, one.is_repeated) for one in message.fields}
    for inner in message.nested_types:
        found |= {f"{message.name}.{name}": field for name, field in fields(inner).items()}
    return found


@pytest.mark.parametrize("message", inference_pb2.DESCRIPTOR.message_types_by_name.values(), ids=lambda one: one.name)
def test_messages_are_the_published_ones(message: Any) -> None:
    assert message.full_name == f"inference.{message.name}"
    assert fields(message) == fields(triton.DESCRIPTOR.message_types_by_name[message.name])


def test_methods_are_the_published_ones() -> None:
    service = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    known = triton.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    for method in service.methods:
        pair = (known[method.name].input_type.full_name, known[method.name].output_type.full_name)
        assert (method.input_type.full_name, method.output_type.full_name) == pair


def test_every_status_has_a_grpc_code() -> None:
    assert set(GRPC) == set(STATUS.values())
    assert {grpc.StatusCode[name] for name in GRPC.values()}.isdisjoint({grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN})


@pytest.mark.parametrize(
    ("schema", "structs"),
    [
        ("inference_request", [oip.InferRequest]),
        ("request_input", [oip.Tensor]),
        ("request_output", [oip.RequestedOutput]),
        ("inference_response", [oip.InferResponse]),
        ("response_output", [oip.OutputTensor, BinaryOutput]),
    ],
)
def test_openapi_schemas_are_the_structs(schema: str, structs: list[type[msgspec.Struct]]) -> None:
    known = [msgspec.structs.fields(struct) for struct in structs]
    described = OPENAPI["components"]["schemas"][schema]
    assert set(described["properties"]) == {field.name for each in known for field in each}
    always = [{field.name for field in each if field.required} for each in known]
    assert set(described["required"]) == set.intersection(*always)
    _, ours = msgspec.json.schema_components(structs)
    for struct in structs:
        for name, one in ours[struct.__name__]["properties"].items():
            assert shape(one, ours) == shape(described["properties"][name], OPENAPI["components"]["schemas"]), name


def shape(schema: dict[str, Any], known: dict[str, Any]) -> str:
    """A schema's type, of an array its items' too; what may be null is what it else is."""
    if "$ref" in schema:
        return shape(known[schema["$ref"].rpartition("/")[2]], known)
    some = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    if some:
        return shape(some[0], known) if len(some) == 1 else "any"
    if schema.get("type") == "array":
        return f"array of {shape(schema.get('items', {'anyOf': [{}, {}]}), known)}"
    return str(schema["type"])
