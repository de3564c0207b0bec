"""What crosses from the gateways to the warehouse. A journal frame is the msgpack of one of these, tagged; format 1."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from interlock.core.settings import Logical

FORMAT = 1
Outcome = Literal["answered", "fallback", "invalid", "refused", "shed", "timeout", "error", "deactivated"]
Role = Literal["live", "shadow"]


class Field(msgspec.Struct, array_like=True, frozen=True):
    """A logged column: raw name and type. `type` of outputs: a logical type, or `floats` for a list of numbers."""

    name: str
    type: Logical | Literal["floats"]
    nullable: bool = False


class Schema(msgspec.Struct, array_like=True, frozen=True, tag="s"):
    """The columns of a package's records; written into a segment before the first record that needs it."""

    package_digest: str
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]


class Prediction(msgspec.Struct, array_like=True, frozen=True, tag="p"):
    """One request, all its rows. Times in microseconds since the epoch.

    `inputs` and `outputs` are checked columns in the order of the package's `Schema`, as lists or as buffers
    (`model.columns.pack`; all inputs in one buffer where all are numbers); empty when there are none. `rows` = 0: a request
    without an answer, kept as row 0. Inputs that are not logged (LOG_INPUTS) are None.
    """

    prediction_id: str
    request_id: str
    endpoint: str
    received_at: int
    event_time: int
    unit_id: str
    unit_source: Literal["client", "request"]
    experiment: str
    phase: int
    arm: str
    propensity: float
    model: str
    version: int
    package_digest: str
    route_revision: int
    outcome: Outcome
    reason: str
    latency_us: int
    model_us: int
    seq: int
    rows: int
    inputs: list[list[Any] | bytes | None]
    outputs: list[list[Any]]
    role: Role = "live"
    traceparent: str = ""
    """Our span of the client's W3C trace; empty = none came."""
    rules: list[str] = []
    """Names of the rules that decided it."""


class Feedback(msgspec.Struct, array_like=True, frozen=True, tag="f"):
    """One value of one row of one prediction; `name` is `label` or an outcome's name.

    Either `prediction_id` and `row` say which, or `unit_id`: the unit's last prediction at or before `at`.
    """

    endpoint: str
    prediction_id: str
    """Empty where `unit_id` is given."""
    row: int
    name: str
    value_num: float | None
    value_text: str | None
    at: int
    received_at: int
    unit_id: str = ""


class Feedbacks(msgspec.Struct, array_like=True, frozen=True, tag="fs"):
    """The feedback of one request: one frame, so that it is kept whole or not at all."""

    items: list[Feedback]


class Heartbeat(msgspec.Struct, array_like=True, frozen=True, tag="h"):
    """Every 10 s and at shutdown: the last `seq` given out, by endpoint; `final` = nothing comes after it."""

    gateway: str
    at: int
    last_seq: dict[str, int]
    final: bool


Record = Schema | Prediction | Feedbacks | Heartbeat
