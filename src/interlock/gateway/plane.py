"""The data plane: one call for every skin. Assign, ask, derive, log, and only then answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from interlock.core.clock import now_us
from interlock.core.errors import (
    DeadlineExceeded,
    InterlockError,
    InvalidRequest,
    PredictionFailed,
    TooLarge,
    Unavailable,
)
from interlock.core.ids import uuid7_text
from interlock.gateway.endpoints import Endpoint, Endpoints, ServedArm
from interlock.gateway.metrics import Metrics
from interlock.gateway.questions import Question, time_of, unit_of
from interlock.gateway.upstream import LostReplica, Numbers, Replica
from interlock.model.answers import Answer, derive
from interlock.model.columns import Column
from interlock.model.signature import Signature
from interlock.predlog.journal import Journal
from interlock.predlog.record import Outcome, Prediction

ID_LENGTH = 256
log = logging.getLogger("interlock.gateway")


class Deactivated(Unavailable):
    """ACTIVATE is false."""

    code = "deactivated"


class Reply(msgspec.Struct):
    """What a skin encodes. `error` is set where there is no answer."""

    prediction_id: str
    endpoint: str
    outcome: Outcome = "error"
    reason: str = ""
    arm: ServedArm | None = None
    question: Question | None = None
    rows: int = 0
    answer: Answer | None = None
    error: InterlockError | None = None


class _Trail(msgspec.Struct):
    """What is learnt of a request on its way, for the log."""

    request_id: str
    received_at: int
    event_time: int
    unit_id: str
    unit_source: Any = "request"
    chance: bool = False
    propensity: float = 1.0
    columns: list[Column] = []
    model_us: int = 0


class Plane:
    """Predictions of all endpoints of this gateway."""

    def __init__(self, endpoints: Endpoints, journal: Journal, metrics: Metrics) -> None:
        self.endpoints = endpoints
        self.journal = journal
        self.metrics = metrics

    async def predict(
        self,
        name: str,
        body: bytes,
        parse: Callable[[bytes], Question],
        headers: Mapping[str, str],
        *,
        too_large: bool,
        version: str,
    ) -> Reply:
        """Answer one request and keep it in the log before returning.

        Raises:
            NotFound: no such endpoint; it is not logged.
            Unavailable: the log cannot be written; nothing was predicted.
        """
        endpoint = self.endpoints.get(name)
        self.journal.require_space()
        began, received = time.perf_counter_ns(), now_us()
        seq = self.endpoints.next_seq(name)
        reply = Reply(prediction_id=uuid7_text(), endpoint=name)
        trail = _Trail(reply.prediction_id, received, received, reply.prediction_id)
        try:
            if too_large:
                raise TooLarge("the body is over 10 MiB")
            reply.question = question = parse(body)
            _identify(trail, question, headers)
            await self._answer(endpoint, question, trail, reply, version, began)
        except InterlockError as error:
            _settle(endpoint, trail, reply, error)
        except Exception:
            log.exception("unexpected error at endpoint %s", name)
            _settle(endpoint, trail, reply, PredictionFailed("internal error; the gateway's log says more"))
        latency = (time.perf_counter_ns() - began) // 1000
        self._keep(endpoint, trail, reply, seq, latency)
        await asyncio.shield(self.journal.written())
        self.metrics.count(name, reply.outcome, reply.arm.arm.name if reply.arm else "", latency)
        return reply

    async def _answer(
        self, endpoint: Endpoint, question: Question, trail: _Trail, reply: Reply, version: str, began: int
    ) -> None:
        parameters = endpoint.parameters
        reply.arm, trail.chance = arm, chance = endpoint.choose(trail.unit_id, version)
        trail.propensity = arm.propensity if chance else 1.0
        rows, trail.columns = question.columns(arm.signature)
        reply.rows = rows
        self._count_unseen(endpoint.route.endpoint, arm, trail.columns)
        if not parameters.activate:
            raise Deactivated(f"endpoint {endpoint.route.endpoint} is deactivated")
        deadline = began / 1e9 + parameters.timeout_second
        numbers = await _ask(arm, rows, trail.columns, deadline, parameters.retry, self.metrics)
        trail.model_us = numbers.model_us
        reply.answer = derive(arm.signature, numbers.values, parameters.threshold)
        reply.outcome = "answered"

    def _count_unseen(self, endpoint: str, arm: ServedArm, columns: list[Column]) -> None:
        for i, name, known in arm.known:
            for value in columns[i]:
                if value not in known and value is not None:
                    self.metrics.count_unseen(endpoint, name)

    def _keep(self, endpoint: Endpoint, trail: _Trail, reply: Reply, seq: int, latency: int) -> None:
        route, arm = endpoint.route, reply.arm
        outside = not trail.chance or trail.unit_source != "client"
        outputs = list(reply.answer.outputs.values()) if reply.answer else []
        self.journal.append(
            Prediction(
                prediction_id=reply.prediction_id,
                request_id=trail.request_id,
                endpoint=route.endpoint,
                received_at=trail.received_at,
                event_time=trail.event_time,
                unit_id=trail.unit_id,
                unit_source=trail.unit_source,
                experiment="" if outside else route.experiment.id,
                phase=route.experiment.phase,
                arm=arm.arm.name if arm else "",
                propensity=trail.propensity,
                model=arm.arm.model if arm else "",
                version=arm.arm.version if arm else 0,
                package_digest=arm.arm.package_digest if arm else "",
                route_revision=route.revision,
                outcome=reply.outcome,
                reason=reply.reason,
                latency_us=latency,
                model_us=trail.model_us,
                seq=seq,
                rows=reply.rows if trail.columns or outputs else 0,
                inputs=_logged(endpoint, arm, trail.columns),
                outputs=outputs,
            ),
            arm.schema if arm else None,
        )


def _identify(trail: _Trail, question: Question, headers: Mapping[str, str]) -> None:
    parameters = question.parameters
    given = parameters.get("unit_id")
    unit = unit_of(headers.get("x-interlock-unit") if given is None else given)
    if unit:
        trail.unit_id, trail.unit_source = unit, "client"
    at = parameters.get("event_time")
    at = headers.get("x-interlock-event-time") if at is None else at
    if at is not None:
        trail.event_time = time_of(at)
    if question.id:
        trail.request_id = question.id[:ID_LENGTH]


async def _ask(
    arm: ServedArm, rows: int, columns: list[Column], deadline: float, retries: int, metrics: Metrics
) -> Numbers:
    """Ask a replica; when it is lost, another one, as long as there is time.

    Raises:
        DeadlineExceeded: the endpoint's TIMEOUT_SECOND is over.
        Unavailable: no replica lives, or all that were tried went away.
    """
    tried: list[Replica] = []
    loop = asyncio.get_running_loop()
    while True:
        replica = arm.pick(tried)
        future = replica.ask(rows, columns)
        left = deadline - time.perf_counter()
        timer = loop.call_later(max(0.0, left), _expire, future)
        try:
            return await future
        except LostReplica:
            tried.append(replica)
            if len(tried) > retries:
                raise
            metrics.retries += 1
        finally:
            timer.cancel()


def _expire(future: asyncio.Future[Numbers]) -> None:
    if not future.done():
        future.set_exception(DeadlineExceeded("no answer within TIMEOUT_SECOND"))


def _settle(endpoint: Endpoint, trail: _Trail, reply: Reply, error: InterlockError) -> None:
    """The outcome of a request that has no answer of its own: the fixed fallback where there is one, else the error."""
    reply.reason = error.message
    if isinstance(error, InvalidRequest):
        reply.outcome, reply.error, reply.rows = "invalid", error, 0
        return
    reason = (
        "timeout"
        if isinstance(error, DeadlineExceeded)
        else "deactivated"
        if isinstance(error, Deactivated)
        else "error"
    )
    fixed = endpoint.parameters.fallback
    if isinstance(fixed, dict) and reply.arm is not None and reply.rows:
        reply.outcome, reply.reason = "fallback", reason
        reply.answer = _fixed(reply.arm.signature, fixed, reply.rows, endpoint.parameters.threshold)
        return
    reply.outcome, reply.error, reply.rows = (reason, error, 0)  # type: ignore[assignment]  # the three reasons are outcomes


def _fixed(signature: Signature, fixed: dict[str, Any], rows: int, threshold: float) -> Answer:
    """The fallback for every row; a binary score alone brings its label along."""
    if signature.task == "binary" and "label" not in fixed:
        return derive(signature, [float(fixed["score"])] * rows, threshold)
    return Answer({output.name: [fixed.get(output.name)] * rows for output in signature.outputs()})


def _logged(endpoint: Endpoint, arm: ServedArm | None, columns: list[Column]) -> list[Column | None]:
    """Columns as they are logged: NaN is a missing value there, LOG_INPUTS leaves others out."""
    if arm is None or not columns:
        return []
    wanted = endpoint.parameters.log_inputs
    if wanted == "all":
        return list(columns)
    names = {name.strip() for name in wanted.split(",")}
    return [column if spec.name in names else None for spec, column in zip(arm.signature.inputs, columns, strict=True)]
