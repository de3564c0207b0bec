"""What a request leaves behind: the reply that a skin encodes, and the record that goes into the log."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from interlock.core.errors import InterlockError, PredictionFailed
from interlock.gateway.arms import Endpoint, ServedArm
from interlock.gateway.questions import Question
from interlock.model.answers import Answer
from interlock.model.columns import Column, Columns, Packed, first_row, pack, split
from interlock.predlog.journal import Journal
from interlock.predlog.record import Outcome, Prediction, Role

INTERNAL = "internal error; the gateway's log says more"
log = logging.getLogger("interlock.gateway")


class Reply(msgspec.Struct):
    """What a skin encodes. `error` is set where there is no answer."""

    prediction_id: str
    endpoint: str
    outcome: Outcome = "error"
    reason: str = ""
    arm: ServedArm | None = None
    """Who is asked, or was to be."""
    rows: int = 0
    columns: Columns = ()
    """What the arm is asked: rows as its own signature reads them; empty where they do not fit it."""
    packed: Packed = []
    """The columns as they travel and are logged; empty until somebody is asked."""
    question: Question | None = None
    answer: Answer | None = None
    error: InterlockError | None = None
    traceparent: str = ""
    """Our span of the client's W3C trace, for the next hop and the log."""
    rules: list[str] = []
    """Names of the rules that decided it."""

    def read(self, arm: ServedArm, question: Question, *, narrower: bool) -> Sequence[str]:
        """Turn to an arm with a question; the inputs that came in a narrower datatype, which only `narrower` lets in.

        Nothing else sets the arm with its rows and columns, so that they always fit each other.

        Raises:
            InvalidRequest: the rows do not fit the arm's signature; it is named in the reply nevertheless.
        """
        if self.arm is not None:
            self.rows, self.columns, self.packed = 0, (), []
        self.arm = arm
        widened = question.widen(arm.signature) if narrower else ()
        self.rows, self.columns = question.columns(arm.signature)
        return widened


class Trail(msgspec.Struct):
    """What is learnt of a request on its way, for the log."""

    request_id: str
    received_at: int
    event_time: int
    unit_id: str
    unit_source: Any = "request"
    chance: bool = False
    propensity: float = 1.0
    model_us: int = 0
    deadline: float = 0.0
    """On the loop's clock."""


def keep(
    journal: Journal, endpoint: Endpoint, reply: Reply, trail: Trail, seq: int, latency_us: int, role: Role = "live"
) -> Reply:
    """Put the record of a request into the log; the reply that it tells of.

    Where no record can be made of a reply, that is an error of its own, and neither the log nor the client gets more of it.
    """
    arm = reply.arm
    schema = arm.schema if arm else None
    try:
        journal.append(_prediction(endpoint, reply, trail, seq, latency_us, role), schema)
    except Exception:
        log.exception("no record can be made of request %s at endpoint %s", reply.prediction_id, reply.endpoint)
    else:
        return reply
    error = PredictionFailed(INTERNAL)
    bare = Reply(
        reply.prediction_id, reply.endpoint, "error", INTERNAL, arm, error=error, traceparent=reply.traceparent
    )
    known = Trail(reply.prediction_id, trail.received_at, trail.received_at, reply.prediction_id)
    journal.append(_prediction(endpoint, bare, known, seq, latency_us, role), schema)
    return bare


def _prediction(endpoint: Endpoint, reply: Reply, trail: Trail, seq: int, latency_us: int, role: Role) -> Prediction:
    """The record of a request: what came, who answered, and what."""
    route, arm = endpoint.route, reply.arm
    outside = not trail.chance or trail.unit_source != "client"
    outputs = list(reply.answer.outputs.values()) if reply.answer else []
    packed = reply.packed
    if arm is not None and reply.columns and not (packed and outputs):  # without an answer: one row
        packed = pack(arm.signature, reply.columns if outputs else first_row(reply.columns))
    return Prediction(
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
        latency_us=latency_us,
        model_us=trail.model_us,
        seq=seq,
        rows=reply.rows if outputs else 0,
        inputs=_logged(endpoint, arm, packed),
        outputs=outputs,
        role=role,
        traceparent=reply.traceparent,
        rules=reply.rules,
    )


def _logged(endpoint: Endpoint, arm: ServedArm | None, columns: Packed) -> list[Column | bytes | None]:
    """Columns as they are logged: NaN is a missing value there, LOG_INPUTS leaves others out."""
    if arm is None or not columns:
        return []
    wanted = endpoint.parameters.log_inputs
    if wanted == "all":
        return list(columns)
    names = {name.strip() for name in wanted.split(",")}
    if arm.signature.numeric and isinstance(rows := columns[0], bytes):
        columns = [*split(rows, len(arm.signature.inputs))]
    return [column if spec.name in names else None for spec, column in zip(arm.signature.inputs, columns, strict=True)]
