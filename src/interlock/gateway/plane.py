"""The data plane: one call for every skin. Assign, ask, derive, log, and only then answer."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, assert_never

from interlock.core.clock import now_us
from interlock.core.errors import (
    DeadlineExceeded,
    InterlockError,
    InvalidRequest,
    Overloaded,
    PredictionFailed,
    RuleRefused,
    Unavailable,
)
from interlock.core.ids import uuid7_text
from interlock.gateway.arms import Endpoint, ServedArm
from interlock.gateway.endpoints import Endpoints
from interlock.gateway.metrics import Metrics
from interlock.gateway.questions import Question, span_of, time_of, unit_of
from interlock.gateway.shadow import Shadows
from interlock.gateway.trail import INTERNAL, Reply, Trail, keep
from interlock.gateway.upstream import LostReplica, Numbers, Replica
from interlock.model.answers import Answer, derive
from interlock.model.columns import Columns, Packed, pack
from interlock.model.signature import Signature
from interlock.predlog.journal import Journal
from interlock.predlog.record import Outcome
from interlock.registry.routes import Rule
from interlock.registry.tokens import Access

ID_LENGTH = 256
RETRY_SHARE, RETRY_CREDIT = 0.2, 1000.0
"""At most one request in five is asked again in the long run, and so many at once when a replica goes."""
log = logging.getLogger("interlock.gateway")


class Deactivated(Unavailable):
    """ACTIVATE is false."""

    code = "deactivated"


class ByRule(Unavailable):
    """A rule of the endpoint wants the fixed fallback."""

    code = "by_rule"


REASONS: dict[type[InterlockError], Outcome] = {
    DeadlineExceeded: "timeout", Deactivated: "deactivated", Overloaded: "shed",
}  # fmt: skip
"""What an error is in the log; every other one is `error`."""


class Plane:
    """Predictions of all endpoints of this gateway."""

    def __init__(self, endpoints: Endpoints, journal: Journal, metrics: Metrics, access: Access) -> None:
        self.endpoints = endpoints
        self.access = access
        self.journal = journal
        self.metrics = metrics
        self.shadows = Shadows(journal, metrics)
        self._loop = asyncio.get_running_loop()
        self._retries = RETRY_CREDIT

    async def predict(
        self,
        name: str,
        read: Callable[[], Question],
        headers: Mapping[str, str],
        *,
        version: str,
        patience: float = math.inf,
    ) -> Reply:
        """Answer what `read` reads and keep it in the log before returning; `patience`: seconds the client waits.

        Raises:
            Unauthenticated: an API key is needed; it is not logged.
            NotFound: no such endpoint; it is not logged.
            Unavailable: the log cannot be written; nothing was predicted.
        """
        self.access.require(name, "predict", headers)
        endpoint = self.endpoints.get(name)
        self.journal.require_space()
        began, received = time.perf_counter_ns(), now_us()
        seq = self.endpoints.next_seq(name)
        reply = Reply(prediction_id=uuid7_text(), endpoint=name)
        trail = Trail(reply.prediction_id, received, received, reply.prediction_id)
        endpoint.under_way += 1
        try:
            if (given := headers.get("traceparent")) is not None:
                reply.traceparent = span_of(given)
            reply.question = question = read()
            _identify(trail, question, headers)
            trail.deadline = self._loop.time() + min(endpoint.parameters.timeout_second, patience)
            await self._answer(endpoint, question, trail, reply, version)
        except InterlockError as error:
            error.__cause__ = error.__context__ = error.__traceback__ = None  # whose frames hold the body, in a cycle
            _settle(endpoint, reply, error)
        except Exception:
            log.exception("unexpected error at endpoint %s", name)
            _settle(endpoint, reply, PredictionFailed(INTERNAL))
        finally:
            endpoint.under_way -= 1
        latency = (time.perf_counter_ns() - began) // 1000
        reply = keep(self.journal, endpoint, reply, trail, seq, latency)
        await self.journal.written()
        arm, version = (reply.arm.arm.name, str(reply.arm.arm.version)) if reply.arm else ("", "")
        self.metrics.count(name, reply.outcome, arm, version, latency)
        return reply

    async def _answer(self, endpoint: Endpoint, question: Question, trail: Trail, reply: Reply, version: str) -> None:
        parameters = endpoint.parameters
        arm, chance = endpoint.choose(trail.unit_id, version)
        trail.chance, trail.propensity = chance, arm.propensity if chance else 1.0
        self._read(endpoint, arm, question, reply)
        self._count_unseen(endpoint.route.endpoint, arm, reply.columns)
        if not parameters.activate:
            raise Deactivated(f"endpoint {endpoint.route.endpoint} is deactivated")
        if endpoint.under_way > parameters.max_concurrency:
            raise Overloaded(f"more than {parameters.max_concurrency} requests are under way")
        rule = arm.rules.decide(reply.columns, reply.rows, trail.unit_id, trail.event_time)
        if rule is not None:
            arm = self._obey(rule, endpoint, arm, question, trail, reply)
            if reply.answer is not None:
                return
        if arm.closed:
            raise Unavailable(f"endpoint {endpoint.route.endpoint} has nobody who may answer: {arm.closed}")
        reply.packed = packed = pack(arm.signature, reply.columns)
        if endpoint.shadows:
            self.shadows.offer(endpoint, question, trail, reply)
        numbers = await self._ask(arm, reply.rows, packed, trail.deadline, parameters.retry)
        trail.model_us = numbers.model_us
        reply.answer = derive(arm.signature, numbers.values, parameters.threshold)
        reply.outcome = "answered"

    def _read(self, endpoint: Endpoint, arm: ServedArm, question: Question, reply: Reply) -> None:
        for name in reply.read(arm, question, narrower=endpoint.route.allow_narrower):
            self.metrics.count_narrower(endpoint.route.endpoint, name)

    def _obey(
        self, rule: Rule, endpoint: Endpoint, arm: ServedArm, question: Question, trail: Trail, reply: Reply
    ) -> ServedArm:
        """What a rule of the arm says: the arm to ask, or the answer in the reply.

        Raises:
            RuleRefused: the rule refuses.
            ByRule: it asks for the fixed fallback.
            InvalidRequest: the rows do not fit the arm that it names.
        """
        reply.rules = [rule.name]
        match rule.then:
            case "refuse":
                raise RuleRefused(rule.reason or f"refused by rule {rule.name}")
            case "fallback":
                raise ByRule(f"rule {rule.name} wants the fallback, and there is none")
            case "answer":
                reply.answer = _fixed(arm.signature, rule.output or {}, reply.rows, endpoint.parameters.threshold)
                reply.outcome, reply.reason = "fallback", "rule"
            case "use":
                arm, trail.chance, trail.propensity = endpoint.named(rule.arm), False, 1.0
                self._read(endpoint, arm, question, reply)
            case _:
                assert_never(rule.then)
        return arm

    async def _ask(self, arm: ServedArm, rows: int, packed: Packed, deadline: float, retries: int) -> Numbers:
        """Ask a replica; when it is lost, another one, as long as there is time, one is left and the budget lasts.

        Raises:
            DeadlineExceeded: the time is over.
            Unavailable: no replica lives, or all that were tried went away.
        """
        tried: list[Replica] = []
        self._retries = min(RETRY_CREDIT, self._retries + RETRY_SHARE)
        while True:
            replica = arm.pick(tried)
            try:
                return await replica.ask(rows, packed, deadline)
            except LostReplica:
                tried.append(replica)
                if len(tried) > retries or self._retries < 1 or self._loop.time() >= deadline:
                    raise
                self._retries -= 1
                self.metrics.retries += 1

    def _count_unseen(self, endpoint: str, arm: ServedArm, columns: Columns) -> None:
        for i, name, known in arm.known:
            for value in columns[i]:
                if value not in known and value is not None:
                    self.metrics.count_unseen(endpoint, name)


def _identify(trail: Trail, question: Question, headers: Mapping[str, str]) -> None:
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


def _settle(endpoint: Endpoint, reply: Reply, error: InterlockError) -> None:
    """The outcome of a request that has no answer of its own: the fixed fallback where there is one, else the error."""
    reply.reason = error.message
    if isinstance(error, InvalidRequest):
        reply.outcome, reply.error = "invalid", error
        return
    if isinstance(error, RuleRefused):
        reply.outcome, reply.error = "refused", error
        return
    outcome: Outcome = next((one for kind, one in REASONS.items() if isinstance(error, kind)), "error")
    fixed = endpoint.parameters.fallback
    if isinstance(fixed, dict) and reply.arm is not None and reply.rows:
        reply.outcome, reply.reason = "fallback", "rule" if isinstance(error, ByRule) else outcome
        reply.answer = _fixed(reply.arm.signature, fixed, reply.rows, endpoint.parameters.threshold)
        return
    reply.outcome, reply.error = outcome, error


def _fixed(signature: Signature, fixed: dict[str, Any], rows: int, threshold: float) -> Answer:
    """A fixed answer for every row; a binary score alone brings its label along."""
    if signature.task == "binary" and "label" not in fixed:
        return derive(signature, [float(fixed["score"])] * rows, threshold)
    return Answer({output.name: [fixed[output.name]] * rows for output in signature.outputs})
