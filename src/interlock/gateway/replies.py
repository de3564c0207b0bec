"""What every skin says of a reply: the values that name it, and the Open Inference Protocol's answer."""

from __future__ import annotations

from interlock.core.errors import InterlockError, PredictionFailed
from interlock.gateway.questions import OipQuestion
from interlock.gateway.trail import Reply
from interlock.model import oip


def headers(reply: Reply) -> list[tuple[str, str]]:
    """Headers of an HTTP answer, trailing metadata of a gRPC one; on errors too."""
    arm = reply.arm.arm if reply.arm else None
    trace = [("traceparent", reply.traceparent)] if reply.traceparent else []
    return [
        *trace,
        ("x-interlock-prediction-id", reply.prediction_id),
        ("x-interlock-model-version", arm.label if arm else ""),
        ("x-interlock-package-digest", arm.package_digest if arm else ""),
        ("x-interlock-arm", arm.name if arm else ""),
        ("x-interlock-outcome", reply.outcome),
    ]


def error_of(reply: Reply) -> InterlockError:
    """The error of a reply that has no answer."""
    return reply.error or PredictionFailed("no answer")


def answer_of(reply: Reply) -> tuple[oip.InferRequest, oip.InferResponse] | None:
    """The request and its answer; none where there is none."""
    if reply.answer is None or reply.arm is None or not isinstance(reply.question, OipQuestion):
        return None
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
    return asked, oip.InferResponse(reply.endpoint, str(arm.arm.version), outputs, asked.id, parameters)
