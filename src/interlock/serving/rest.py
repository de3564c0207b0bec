"""The REST skin of a model server: decode, one call, encode."""

from __future__ import annotations

import numpy as np

from interlock.core.errors import InterlockError, NotFound, PredictionFailed, TooLarge
from interlock.core.http import TEXT, Request, Response, error_response, json_response
from interlock.model import oip
from interlock.model.answers import derive
from interlock.model.columns import pack
from interlock.model.wire import BatchRequest
from interlock.serving.batching import Batcher

SERVER = {"name": "interlock", "version": "0.1.0", "extensions": []}


class ModelDoor:
    """Open Inference Protocol v2 for the one model of this process."""

    def __init__(self, batcher: Batcher, approved: str) -> None:
        self.batcher = batcher
        self.approved = approved
        """`approved`, `self-approved` or `offline`: said in every answer."""
        self.draining = False
        manifest = batcher.predictor.manifest
        self.model = manifest.model
        self.threshold = manifest.threshold
        self.digest = batcher.predictor.digest

    async def handle(self, request: Request) -> Response:
        """Answer one request."""
        try:
            return await self._route(request)
        except InterlockError as error:
            return error_response(error)

    async def _route(self, request: Request) -> Response:
        path, base = request.path, f"/v2/models/{self.model}"
        if request.method == "POST" and path == f"{base}/infer":
            return await self._infer(request)
        if path in ("/livez", "/v2/health/live"):
            return json_response({"live": True})
        if path in ("/readyz", "/v2/health/ready", f"{base}/ready"):
            state = {"ready": not self.draining, "reason": "draining" if self.draining else "", "package": self.digest}
            return json_response(state, 503 if self.draining else 200)
        if path == "/v2":
            return json_response(SERVER)
        if path == base:
            return json_response(
                oip.metadata(self.model, [], self.batcher.predictor.signature) | {"parameters": self._who()}
            )
        if path == "/metrics":
            return Response(200, self._metrics().encode(), TEXT)
        raise NotFound(f"nothing is served at {request.method} {path}; the model is {self.model}")

    async def _infer(self, request: Request) -> Response:
        if request.too_large:
            raise TooLarge("the body is over 10 MiB")
        body = oip.decode(request.body)
        signature = self.batcher.predictor.signature
        rows, columns = oip.read_columns(signature, body)
        answer = await self.batcher.submit(BatchRequest([rows], pack(signature.inputs, columns)))
        if answer.failures:
            raise PredictionFailed(answer.failures[0])
        numbers: list[float] = np.frombuffer(answer.numbers).tolist()
        outputs = oip.tensors(signature, derive(signature, numbers, self.threshold), rows, body.outputs)
        reply = oip.InferResponse(self.model, "", outputs, body.id, self._who())
        return Response(200, oip.encode(reply))

    def _who(self) -> dict[str, oip.Scalar]:
        return {"package_digest": self.digest, "approval": self.approved}

    def _metrics(self) -> str:
        return (
            "# TYPE interlock_model_rows_total counter\n"
            f"interlock_model_rows_total {self.batcher.rows}\n"
            "# TYPE interlock_model_calls_total counter\n"
            f"interlock_model_calls_total {self.batcher.calls}\n"
        )
