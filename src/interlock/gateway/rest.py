"""The REST skin of the gateway: Open Inference Protocol v2, invocations, feedback, health. Decode, one call, encode."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from interlock.core.errors import InterlockError, NotFound, Overloaded
from interlock.core.http import JSON, TEXT, Request, Response, error_response, json_response, status_of
from interlock.gateway.feedback import read_feedback
from interlock.gateway.metrics import Metrics
from interlock.gateway.plane import Plane
from interlock.gateway.questions import OipQuestion
from interlock.gateway.replies import answer_of, error_of, headers
from interlock.gateway.trail import Reply
from interlock.model import oip, oip_binary, paths
from interlock.model.scoring import parser

SERVED = paths.SERVED | {
    "/v2/models/{model}/parameters": paths.READ,
    "/endpoints/{endpoint}/invocations": paths.ASK,
    "/endpoints/{endpoint}/feedback": paths.ASK,
}
METHODS = ("GET", "HEAD", "POST")


class GatewayDoor:
    """Routes a request by method and path."""

    def __init__(self, plane: Plane, metrics: Metrics) -> None:
        self.plane = plane
        self.metrics = metrics
        self.loading = True
        self.draining = False

    async def handle(self, request: Request) -> Response:
        """Answer one request; errors become their status with `{"error": …}`."""
        began = time.perf_counter()
        self.metrics.active += 1
        try:
            response = await self._answer(request)
        finally:
            self.metrics.active -= 1
        method = request.method if request.method in METHODS else "_OTHER"
        route = "" if response.status == 404 else paths.template(request.path)
        observed = self.metrics.http[method, route, str(response.status)]
        observed.add(time.perf_counter() - began)
        return response

    async def _answer(self, request: Request) -> Response:
        try:
            if request.method == "POST":
                return await self._post(request)
            if request.method in ("GET", "HEAD"):
                return self._get(request)
            raise paths.unserved(request, SERVED)
        except InterlockError as error:
            if isinstance(error, NotFound):
                self.metrics.unknown += 1
            return error_response(error)

    async def _post(self, request: Request) -> Response:
        match request.path.split("/"):
            case ["", "v2", "models", name, "infer"]:
                return await self._infer(request, name, "")
            case ["", "v2", "models", name, "versions", version, "infer"]:
                return await self._infer(request, name, version)
            case ["", "endpoints", name, "invocations"]:
                return await self._invoke(request, name)
            case ["", "invocations"]:
                return await self._invoke(request, self.plane.endpoints.only())
            case ["", "endpoints", name, "feedback"]:
                return await self._feedback(request, name)
        raise paths.unserved(request, SERVED)

    async def _infer(self, request: Request, name: str, version: str) -> Response:
        def read() -> OipQuestion:
            body, header = request.content(), request.headers.get(oip_binary.HEADER)
            return OipQuestion(oip.decode(body) if header is None else oip_binary.decode(body, header))

        reply = await self.plane.predict(name, read, request.headers, version=version)
        answer = answer_of(reply)
        if answer is None:
            return _failed(reply)
        body, content = oip_binary.respond(*answer)
        return Response(200, body, content + headers(reply))

    async def _invoke(self, request: Request, name: str) -> Response:
        """MLflow's scoring request, also as SageMaker's runtime sends it: with its headers for id and variant (an arm)."""
        given = request.headers
        parse = parser(given.get("content-type"), given.get("x-amzn-sagemaker-inference-id"))
        variant = given.get("x-amzn-sagemaker-target-variant") or ""
        reply = await self.plane.predict(name, lambda: parse(request.content()), given, version=variant)
        if reply.answer is None:
            return _failed(reply)
        answered = [("x-amzn-invoked-production-variant", reply.arm.arm.name if reply.arm else "")]
        return Response(200, oip.encode({"predictions": reply.answer.records()}), JSON + headers(reply) + answered)

    async def _feedback(self, request: Request, name: str) -> Response:
        self.plane.access.require(name, "feedback", request.headers)
        self.plane.endpoints.get(name)
        self.plane.journal.require_space()
        count, records = read_feedback(name, request.content())
        self.plane.journal.append(records)
        await self.plane.journal.written()
        self.metrics.feedback += count
        return json_response({"accepted": count}, 202)

    def _get(self, request: Request) -> Response:
        endpoints = self.plane.endpoints
        match request.path.split("/"):
            case ["", "livez"] | ["", "v2", "health", "live"] | ["", "ping"]:
                return json_response({"live": True})
            case ["", "readyz"] | ["", "v2", "health", "ready"]:
                reason = self.unready()
                return json_response({"ready": not reason, "reason": reason}, 503 if reason else 200)
            case ["", "v2"] | ["", "v2", ""]:
                return json_response(oip.SERVER)
            case ["", "version"]:
                return Response(200, oip.SERVER["version"].encode(), TEXT)
            case ["", "metrics"]:
                text = self.metrics.text(endpoints.snapshot(self.plane.journal.bytes_written))
                return Response(200, text.encode(), TEXT)
            case ["", "v2", "models", name]:
                return json_response(self.describe(name, "", request.headers))
            case ["", "v2", "models", name, "versions", version]:
                return json_response(self.describe(name, version, request.headers))
            case ["", "v2", "models", name, "parameters"]:
                self.plane.access.require(name, "predict", request.headers)
                return json_response(endpoints.get(name).origins())
            case ["", "v2", "models", name, "ready"]:
                return _ready(name, self.ready(name, ""))
            case ["", "v2", "models", name, "versions", version, "ready"]:
                return _ready(name, self.ready(name, version))
        raise paths.unserved(request, SERVED)

    def ready(self, name: str, version: str) -> bool:
        """Whether every arm with traffic has a live replica; of a version, whether it has one.

        Raises:
            NotFound, UnknownVersion: no such endpoint; no such live version, or pinning is not allowed.
        """
        endpoint = self.plane.endpoints.get(name)
        if not version:
            return endpoint.live
        arm, _ = endpoint.choose("", version)
        return any(replica.live for replica in arm.replicas)

    def describe(self, name: str, version: str, headers: Mapping[str, str]) -> dict[str, Any]:
        """Metadata of an endpoint, or of one version of it.

        Raises:
            Unauthenticated, NotFound, UnknownVersion: an API key is needed; nothing is deployed; no such live version, or
                pinning is not allowed.
        """
        self.plane.access.require(name, "predict", headers)
        endpoint = self.plane.endpoints.get(name)
        if not endpoint.arms:
            raise NotFound(f"nothing is deployed at endpoint {name!r}")
        arm = endpoint.choose("", version)[0] if version else next(iter(endpoint.arms.values()))
        return oip.metadata(name, [str(one.version) for one in endpoint.route.arms], arm.signature)

    def unready(self) -> str:
        """Why this gateway is not ready; empty = it is."""
        if self.loading:
            return "loading"
        if self.draining:
            return "draining"
        known = self.plane.endpoints.by_name
        if not known:
            return "nothing is deployed"
        dead = [name for name, endpoint in known.items() if not endpoint.live]
        return f"no live upstream for {', '.join(dead)}" if dead else ""


def _ready(name: str, ready: bool) -> Response:
    return json_response({"name": name, "ready": ready}, 200 if ready else 503)


def _failed(reply: Reply) -> Response:
    error = error_of(reply)
    body = {"error": error.message, "prediction_id": reply.prediction_id}
    again = [("retry-after", "1")] if isinstance(error, Overloaded) else []
    return Response(status_of(error), oip.encode(body), JSON + headers(reply) + again)
