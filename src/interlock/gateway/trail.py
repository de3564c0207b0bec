"""What a request leaves behind: the reply that a skin encodes, and the record that goes into the log."""

from __future__ import annotations

from typing import Any

import msgspec

from interlock.core.errors import InterlockError
from interlock.gateway.arms import Endpoint, ServedArm
from interlock.gateway.questions import Question
from interlock.model.answers import Answer
from interlock.model.columns import Column, Columns, Packed, first_row, pack, split
from interlock.predlog.record import Outcome, Prediction, Role


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
    traceparent: str = ""
    """Our span of the client's W3C trace, for the next hop and the log."""
    rules: list[str] = []
    """Names of the rules that decided it."""


class Trail(msgspec.Struct):
    """What is learnt of a request on its way, for the log."""

    request_id: str
    received_at: int
    event_time: int
    unit_id: str
    unit_source: Any = "request"
    chance: bool = False
    propensity: float = 1.0
    columns: Columns = ()
    packed: Packed = []
    """The columns as they travel and are logged; empty until somebody is asked."""
    model_us: int = 0
    deadline: float = 0.0
    """On the loop's clock."""


def prediction(
    endpoint: Endpoint, reply: Reply, trail: Trail, seq: int, latency_us: int, role: Role = "live"
) -> Prediction:
    """The record of a request: what came, who answered, and what."""
    route, arm = endpoint.route, reply.arm
    outside = not trail.chance or trail.unit_source != "client"
    outputs = list(reply.answer.outputs.values()) if reply.answer else []
    packed = trail.packed
    if arm is not None and trail.columns and not (packed and outputs):  # without an answer: one row
        packed = pack(arm.signature, trail.columns if outputs else first_row(trail.columns))
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
        rows=reply.rows,
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
