"""The REST skin of a model server: decode, one call, encode."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from interlock.core.errors import DeadlineExceeded, InterlockError, NotFound, PredictionFailed, UnknownVersion
from interlock.core.http import TEXT, Request, Response, error_response, json_response
from interlock.model import oip, oip_binary
from interlock.model.answers import Answer, derive
from interlock.model.columns import Columns, pack
from interlock.model.paths import SERVED, unserved
from interlock.model.scoring import parser
from interlock.model.wire import TOO_LATE, BatchRequest
from interlock.serving.batching import Batcher
from interlock.serving.standing import Standing

LONGEST = 1e6
"""Seconds for which anybody waits at most."""


class ModelDoor:
    """Open Inference Protocol v2 for the one model of this process."""

    def __init__(self, batcher: Batcher, standing: Standing) -> None:
        self.batcher = batcher
        self.standing = standing
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
        match request.method, request.path.split("/"):
            case "POST", ["", "v2", "models", name, "infer"]:
                return await self._infer(request, name, "")
            case "POST", ["", "v2", "models", name, "versions", version, "infer"]:
                return await self._infer(request, name, version)
            case "POST", ["", "invocations"]:
                return await self._invoke(request)
            case "GET" | "HEAD", parts:
                return self._get(request, parts)
        raise unserved(request, SERVED)

    def _get(self, request: Request, parts: list[str]) -> Response:
        match parts:
            case ["", "livez"] | ["", "v2", "health", "live"] | ["", "ping"]:
                return json_response({"live": True})
            case ["", "readyz"] | ["", "v2", "health", "ready"]:
                return self._ready(self.model, "")
            case ["", "v2", "models", name, "ready"]:
                return self._ready(name, "")
            case ["", "v2", "models", name, "versions", version, "ready"]:
                return self._ready(name, version)
            case ["", "v2"] | ["", "v2", ""]:
                return json_response(oip.SERVER)
            case ["", "v2", "models", name]:
                return json_response(self.describe(name, "", {}) | {"parameters": self._who()})
            case ["", "v2", "models", name, "versions", version]:
                return json_response(self.describe(name, version, {}) | {"parameters": self._who()})
            case ["", "version"]:
                return Response(200, oip.SERVER["version"].encode(), TEXT)
            case ["", "metrics"]:
                return Response(200, self._metrics().encode(), TEXT)
        raise unserved(request, SERVED)

    def require(self, name: str, version: str) -> None:
        """Refuse another model than the one served here; its version here is the package's digest, or none.

        Raises:
            NotFound, UnknownVersion: it is another.
        """
        if name != self.model:
            raise NotFound(f"no model {name!r}; the model is {self.model}")
        if version not in ("", self.digest):
            raise UnknownVersion(f"version {version!r} is not served here; it is {self.digest}")

    def unready(self) -> str:
        """Why this server is not ready; empty = it is."""
        return "draining" if self.draining else self.standing.refused

    def ready(self, name: str, version: str) -> bool:
        """Whether the model can answer; see `require`."""
        self.require(name, version)
        return not self.unready()

    def describe(self, name: str, version: str, headers: Mapping[str, str]) -> dict[str, Any]:
        """The model's metadata; see `require`."""
        self.require(name, version)
        return oip.metadata(self.model, [self.digest], self.batcher.predictor.signature)

    async def predict(self, asked: oip.InferRequest, patience: float = math.inf) -> oip.InferResponse:
        """Answer a request, whatever the codec; `patience`: seconds the client waits.

        Raises:
            InvalidRequest: it does not fit the signature.
            PredictionFailed: the model failed on it.
            DeadlineExceeded: the client's patience ended before the model had time for it.
            NotApproved: the package may not be served any more.
        """
        signature = self.batcher.predictor.signature
        rows, columns = oip.read_columns(signature, asked)
        outputs = oip.tensors(signature, await self._answer(rows, columns, patience), rows, asked.outputs)
        return oip.InferResponse(self.model, self.digest, outputs, asked.id, self._who())

    async def _answer(self, rows: int, columns: Columns, patience: float = math.inf) -> Answer:
        self.standing.require()
        signature = self.batcher.predictor.signature
        left = int(min(patience, LONGEST) * 1e6)
        answer = await self.batcher.submit(BatchRequest([rows], pack(signature, columns), left))
        if answer.failures.get(0) == TOO_LATE:
            raise DeadlineExceeded("the model had no time for it before the deadline")
        if answer.failures:
            raise PredictionFailed(answer.failures[0])
        return derive(signature, np.frombuffer(answer.numbers).tolist(), self.threshold)

    async def _invoke(self, request: Request) -> Response:
        """MLflow's scoring request."""
        question = parser(request.headers.get("content-type"))(request.content())
        answer = await self._answer(*question.columns(self.batcher.predictor.signature))
        return json_response({"predictions": answer.records()})

    async def _infer(self, request: Request, name: str, version: str) -> Response:
        self.require(name, version)
        body, header = request.content(), request.headers.get(oip_binary.HEADER)
        asked = oip.decode(body) if header is None else oip_binary.decode(body, header)
        return Response(200, *oip_binary.respond(asked, await self.predict(asked)))

    def _ready(self, name: str, version: str) -> Response:
        ready = self.ready(name, version)
        state = {"name": name, "ready": ready, "reason": self.unready(), "package": self.digest}
        return json_response(state, 200 if ready else 503)

    def _who(self) -> dict[str, oip.Scalar]:
        return {"package_digest": self.digest, "approval": self.standing.approved}

    def _metrics(self) -> str:
        return (
            "# TYPE interlock_model_rows_total counter\n"
            f"interlock_model_rows_total {self.batcher.rows}\n"
            "# TYPE interlock_model_calls_total counter\n"
            f"interlock_model_calls_total {self.batcher.calls}\n"
            "# TYPE interlock_model_late_total counter\n"
            f"interlock_model_late_total {self.batcher.late}\n"
        )
