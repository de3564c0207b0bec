"""The REST skin of the gateway: Open Inference Protocol v2, invocations, feedback, health. Decode, one call, encode."""

from __future__ import annotations

import asyncio

from interlock.core.errors import InterlockError, NotFound, Overloaded, PredictionFailed, TooLarge
from interlock.core.http import JSON, TEXT, Request, Response, error_response, json_response, status_of
from interlock.gateway.feedback import read_feedback
from interlock.gateway.metrics import Metrics
from interlock.gateway.plane import Plane
from interlock.gateway.questions import OipQuestion
from interlock.gateway.scoring import parser
from interlock.gateway.trail import Reply
from interlock.model import oip

SERVER = {"name": "interlock", "version": "0.1.0", "extensions": []}


class GatewayDoor:
    """Routes a request by method and path."""

    def __init__(self, plane: Plane, metrics: Metrics) -> None:
        self.plane = plane
        self.metrics = metrics
        self.loading = True
        self.draining = False

    async def handle(self, request: Request) -> Response:
        """Answer one request; errors become their status with `{"error": …}`."""
        try:
            parts = request.path.split("/")
            if request.method == "POST":
                return await self._post(request, parts)
            if request.method in ("GET", "HEAD"):
                return self._get(request, parts)
            raise NotFound(f"nothing is served at {request.method} {request.path}")
        except InterlockError as error:
            if isinstance(error, NotFound):
                self.metrics.unknown += 1
            return error_response(error)

    async def _post(self, request: Request, parts: list[str]) -> Response:
        match parts:
            case ["", "v2", "models", name, "infer"]:
                return await self._infer(request, name, "")
            case ["", "v2", "models", name, "versions", version, "infer"]:
                return await self._infer(request, name, version)
            case ["", "endpoints", name, "invocations"]:
                return await self._invoke(request, name)
            case ["", "endpoints", name, "feedback"]:
                return await self._feedback(request, name)
        raise NotFound(f"nothing is served at POST {request.path}")

    async def _infer(self, request: Request, name: str, version: str) -> Response:
        plane = self.plane
        reply = await plane.predict(
            name, request.body, OipQuestion, request.headers, too_large=request.too_large, version=version
        )
        if reply.answer is None or reply.arm is None or not isinstance(reply.question, OipQuestion):
            return _failed(reply)
        asked, arm = reply.question.request, reply.arm
        outputs = oip.tensors(arm.signature, reply.answer, reply.rows, asked.outputs)
        parameters: dict[str, oip.Scalar] = {
            "prediction_id": reply.prediction_id,
            "model_version": arm.arm.label,
            "package_digest": arm.arm.package_digest,
            "arm": arm.arm.name,
            "outcome": reply.outcome,
        }
        if reply.reason:
            parameters["reason"] = reply.reason
        if arm.approval != "approved":
            parameters["approval"] = arm.approval
        body = oip.InferResponse(reply.endpoint, str(arm.arm.version), outputs, asked.id, parameters)
        return Response(200, oip.encode(body), _headers(reply))

    async def _invoke(self, request: Request, name: str) -> Response:
        reply = await self.plane.predict(
            name,
            request.body,
            parser(request.headers.get("content-type")),
            request.headers,
            too_large=request.too_large,
            version="",
        )
        if reply.answer is None:
            return _failed(reply)
        return Response(200, oip.encode({"predictions": reply.answer.records()}), _headers(reply))

    async def _feedback(self, request: Request, name: str) -> Response:
        self.plane.access.require(name, "feedback", request.headers)
        self.plane.endpoints.get(name)
        self.plane.journal.require_space()
        if request.too_large:
            raise TooLarge("the body is over 10 MiB")
        count, records = read_feedback(name, request.body)
        self.plane.journal.append(records)
        await asyncio.shield(self.plane.journal.written())
        self.metrics.feedback += count
        return json_response({"accepted": count}, 202)

    def _get(self, request: Request, parts: list[str]) -> Response:
        endpoints = self.plane.endpoints
        match parts:
            case ["", "livez"] | ["", "v2", "health", "live"]:
                return json_response({"live": True})
            case ["", "readyz"] | ["", "v2", "health", "ready"]:
                reason = self._unready()
                return json_response({"ready": not reason, "reason": reason}, 503 if reason else 200)
            case ["", "v2"]:
                return json_response(SERVER)
            case ["", "metrics"]:
                revisions = {name: one.route.revision for name, one in endpoints.by_name.items()}
                text = self.metrics.text(self.plane.journal.bytes_written, revisions)
                return Response(200, text.encode(), TEXT)
            case ["", "v2", "models", name]:
                self.plane.access.require(name, "predict", request.headers)
                endpoint = endpoints.get(name)
                if not endpoint.arms:
                    raise NotFound(f"nothing is deployed at endpoint {name!r}")
                versions = [str(arm.arm.version) for arm in endpoint.arms.values()]
                first = next(iter(endpoint.arms.values()))
                return json_response(oip.metadata(name, versions, first.signature))
            case ["", "v2", "models", name, "ready"]:
                live = endpoints.get(name).live
                return json_response({"name": name, "ready": live}, 200 if live else 503)
        raise NotFound(f"nothing is served at GET {request.path}")

    def _unready(self) -> str:
        if self.loading:
            return "loading"
        if self.draining:
            return "draining"
        known = self.plane.endpoints.by_name
        if not known:
            return "nothing is deployed"
        dead = [name for name, endpoint in known.items() if not endpoint.live]
        return f"no live upstream for {', '.join(dead)}" if dead else ""


def _headers(reply: Reply) -> list[tuple[str, str]]:
    arm = reply.arm.arm if reply.arm else None
    return [
        *JSON,
        ("x-interlock-prediction-id", reply.prediction_id),
        ("x-interlock-model-version", arm.label if arm else ""),
        ("x-interlock-package-digest", arm.package_digest if arm else ""),
        ("x-interlock-arm", arm.name if arm else ""),
        ("x-interlock-outcome", reply.outcome),
    ]


def _failed(reply: Reply) -> Response:
    error = reply.error or PredictionFailed("no answer")
    body = {"error": error.message, "prediction_id": reply.prediction_id}
    headers = _headers(reply)
    if isinstance(error, Overloaded):
        headers.append(("retry-after", "1"))
    return Response(status_of(error), oip.encode(body), headers)
