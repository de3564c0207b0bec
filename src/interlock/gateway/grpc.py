"""The gRPC skin of the gateway: decode, one call, encode. Journal, parameters and assignment are REST's own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from interlock.core.errors import NotFound
from interlock.core.grpc import Answer, GrpcServer
from interlock.gateway.questions import OipQuestion
from interlock.gateway.replies import answer_of, error_of, headers
from interlock.gateway.rest import GatewayDoor
from interlock.model import oip_grpc


def grpc_server(door: GatewayDoor, host: str, port: int) -> GrpcServer:
    """`inference.GRPCInferenceService` for the endpoints of this gateway."""
    return GrpcServer(oip_grpc.SERVICE, oip_grpc.methods(door, partial(_infer, door)), host=host, port=port)


async def _infer(door: GatewayDoor, message: Any, metadata: Mapping[str, str], left: float) -> Answer:
    """Metadata keys are the names of REST's headers; the caller's deadline may come before TIMEOUT_SECOND."""
    name, version = message.model_name, message.model_version
    try:
        reply = await door.plane.predict(
            name, lambda: OipQuestion(oip_grpc.read(message)), metadata, version=version, patience=left
        )
    except NotFound:
        door.metrics.unknown += 1
        raise
    named = tuple(headers(reply))
    answer = answer_of(reply)
    if answer is None:
        return Answer(trailing=named, error=error_of(reply))
    return Answer(oip_grpc.write(answer[1], raw=bool(message.raw_input_contents)), named)
