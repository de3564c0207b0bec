"""Labels and outcomes from clients: checked, journaled, answered. Whether the prediction id is known shows in the warehouse."""

from __future__ import annotations

import uuid

import msgspec

from interlock.core.clock import now_us
from interlock.core.errors import InvalidRequest
from interlock.gateway.questions import time_of
from interlock.model import oip
from interlock.predlog.record import FIRST_US, LAST_US, Feedback, Feedbacks


class _Item(msgspec.Struct, forbid_unknown_fields=True):
    prediction_id: str
    row: int = 0
    label: str | int | float | bool | None = None
    outcomes: dict[str, int | float | bool] = {}
    at: str | int | None = None


_decoder = msgspec.json.Decoder(_Item | list[_Item])


def read_feedback(endpoint: str, body: bytes) -> tuple[int, Feedbacks]:
    """The number of items in a body, and their values as records.

    Raises:
        InvalidRequest: names the item and what is wrong with it; nothing of the body is kept.
    """
    given = oip.read_json(_decoder, body, "feedback")
    items = given if isinstance(given, list) else [given]
    received = now_us()
    records = []
    for i, item in enumerate(items):
        try:
            records += _records(endpoint, item, received)
        except InvalidRequest as error:
            raise InvalidRequest(f"item {i}: {error.message}") from None
    if not records:
        raise InvalidRequest("no item holds a label or outcomes")
    return len(items), Feedbacks(records)


def _records(endpoint: str, item: _Item, received: int) -> list[Feedback]:
    try:
        prediction = str(uuid.UUID(item.prediction_id))
    except ValueError:
        raise InvalidRequest(f"prediction_id: expected a UUID, got {item.prediction_id[:60]!r}") from None
    if not 0 <= item.row < 2**31:
        raise InvalidRequest(f"row: expected 0 or more, got {item.row}")
    if "label" in item.outcomes:
        raise InvalidRequest("outcomes: the name 'label' is taken; say label")
    at = time_of(item.at, "at")
    if not FIRST_US <= at <= LAST_US:
        raise InvalidRequest(f"at: expected a time of the years 1 to 9999, got {at}")
    values: dict[str, str | float] = {name: _number(name, value) for name, value in item.outcomes.items()}
    if item.label is not None:
        values["label"] = item.label if isinstance(item.label, str) else _number("label", item.label)
    return [
        Feedback(
            endpoint=endpoint,
            prediction_id=prediction,
            row=item.row,
            name=name,
            value_num=None if isinstance(value, str) else value,
            value_text=value if isinstance(value, str) else None,
            at=at,
            received_at=received,
        )
        for name, value in values.items()
    ]


def _number(name: str, value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise InvalidRequest(f"{name[:60]}: the number is beyond FP64") from None
