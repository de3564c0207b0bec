"""The gRPC skin of a model server: decode, one call, encode."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from interlock.core.grpc import Answer, GrpcServer
from interlock.model import oip_grpc
from interlock.serving.rest import ModelDoor


def grpc_server(door: ModelDoor, *, host: str = "", port: int = 0, path: Path | None = None) -> GrpcServer:
    """`inference.GRPCInferenceService` for the one model of this process, on a port or a Unix socket."""
    return GrpcServer(oip_grpc.SERVICE, oip_grpc.methods(door, partial(_infer, door)), host=host, port=port, path=path)


async def _infer(door: ModelDoor, message: Any, metadata: Mapping[str, str], left: float) -> Answer:
    """Work that the model gets to when the caller's deadline is over is left undone."""
    door.require(message.model_name, message.model_version)
    response = await door.predict(oip_grpc.read(message), left)
    return Answer(oip_grpc.write(response, raw=bool(message.raw_input_contents)))
