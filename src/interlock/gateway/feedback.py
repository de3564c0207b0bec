"""Labels and outcomes from clients: checked, journaled, answered. Which prediction they are about shows in the warehouse."""

from __future__ import annotations

import uuid

import msgspec

from interlock.core.clock import now_us
from interlock.core.errors import InvalidRequest
from interlock.gateway.questions import time_of, unit_of
from interlock.model import oip
from interlock.predlog.record import Feedback, Feedbacks

Value = str | int | float | bool


class _Item(msgspec.Struct, forbid_unknown_fields=True):
    prediction_id: str = ""
    unit_id: str | int = ""
    row: int = 0
    label: Value | None = None
    outcomes: dict[str, int | float | bool] = {}
    name: str = ""
    value: Value | None = None
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
    prediction, unit = _subject(item)
    if not 0 <= item.row < 2**31:
        raise InvalidRequest(f"row: expected 0 or more, got {item.row}")
    at = time_of(item.at, "at")
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
            unit_id=unit,
        )
        for name, value in _values(item).items()
    ]


def _subject(item: _Item) -> tuple[str, str]:
    """What the item is about: the id of a prediction, or a unit; the other one is empty."""
    unit = unit_of(item.unit_id)
    if bool(unit) == bool(item.prediction_id):
        raise InvalidRequest("expected either prediction_id, or unit_id and at")
    if unit:
        if item.at is None or item.at == "":
            raise InvalidRequest("unit_id needs at: the unit's last prediction at or before it is meant")
        if item.row:
            raise InvalidRequest("row needs prediction_id")
        return "", unit
    try:
        return str(uuid.UUID(item.prediction_id)), ""
    except ValueError:
        raise InvalidRequest(f"prediction_id: expected a UUID, got {item.prediction_id[:60]!r}") from None


def _values(item: _Item) -> dict[str, str | float]:
    """Name → value of everything that the item says."""
    if "label" in item.outcomes:
        raise InvalidRequest("outcomes: the name 'label' is taken; say label")
    said: dict[str, Value] = {**item.outcomes}
    if item.label is not None:
        said["label"] = item.label
    if bool(item.name) == (item.value is None):
        raise InvalidRequest("name and value come together")
    if item.value is not None:
        if item.name in said:
            raise InvalidRequest(f"{item.name[:60]!r} is said twice")
        said[item.name] = item.value
    return {name: _value(name, value) for name, value in said.items()}


def _value(name: str, value: Value) -> str | float:
    if isinstance(value, str):
        if name != "label":
            raise InvalidRequest(f"{name[:60]}: expected a number, got text")
        return value
    try:
        return float(value)
    except OverflowError:
        raise InvalidRequest(f"{name[:60]}: the number is beyond FP64") from None
