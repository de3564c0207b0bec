"""What clients may say about predictions later, and what is refused before it reaches the journal."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from interlock.core.clock import parse_time, to_us
from interlock.core.errors import InvalidRequest
from interlock.gateway.feedback import read_feedback
from interlock.predlog.record import Feedback, Feedbacks

ID = "01a20445-6d37-7000-b803-f170194e4195"
AT = "2026-01-01T10:00:00Z"
HUGE = 10**400


def read(*items: dict[str, Any]) -> list[Feedback]:
    """The records of items; by hand where msgspec would not write such a number."""
    body = msgspec.json.encode(list(items)).replace(b'"HUGE"', str(HUGE).encode())
    count, records = read_feedback("e", body)
    assert count == len(items)
    return records.items


def test_values_of_a_prediction() -> None:
    found = read({"prediction_id": ID, "row": 2, "label": True, "outcomes": {"minutes": 7}, "at": AT})
    assert [(one.prediction_id, one.unit_id, one.row, one.name, one.value_num) for one in found] == [
        (ID, "", 2, "minutes", 7.0),
        (ID, "", 2, "label", 1.0),
    ]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"label": "late"}, [("label", None, "late")]),
        ({"label": 1, "outcomes": {"revenue": 2}}, [("revenue", 2.0, None), ("label", 1.0, None)]),
        ({"name": "label", "value": "late"}, [("label", None, "late")]),
        ({"name": "revenue", "value": 2.5}, [("revenue", 2.5, None)]),
    ],
)
def test_values_of_a_unit(said: dict[str, Any], expected: list[Any]) -> None:
    found = read({"unit_id": 17, "at": AT, **said})
    assert [(one.name, one.value_num, one.value_text) for one in found] == expected
    assert {(one.prediction_id, one.unit_id, one.at) for one in found} == {("", "17", to_us(parse_time(AT)))}


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ({"prediction_id": ID, "label": "HUGE"}, "item 0: label: the number is beyond FP64"),
        ({"prediction_id": ID, "outcomes": {"minutes": "HUGE"}}, "item 0: minutes: the number is beyond FP64"),
        ({"prediction_id": ID, "name": "minutes", "value": "HUGE"}, "item 0: minutes: the number is beyond FP64"),
        ({"prediction_id": ID, "label": 1, "at": "0001-01-01T00:00:00+01:00"}, "item 0: at: "),
        ({"prediction_id": ID, "label": 1, "at": "9999-12-31T23:59:59-01:00"}, "item 0: at: "),
        (
            {"prediction_id": ID, "label": 1, "at": 2**61},
            "item 0: at: expected microseconds within the years 1 to 9999",
        ),
        ({"unit_id": "N1", "label": 1, "at": "0001-01-01T00:00:00+01:00"}, "item 0: at: "),
        ({"label": 1}, "expected either prediction_id, or unit_id and at"),
        ({"prediction_id": ID, "unit_id": "N1", "at": AT, "label": 1}, "expected either"),
        ({"unit_id": "", "at": AT, "label": 1}, "expected either"),
        ({"unit_id": "N1", "label": 1}, "unit_id needs at"),
        ({"unit_id": "N1", "at": AT, "row": 1, "label": 1}, "row needs prediction_id"),
        ({"unit_id": "N" * 257, "at": AT, "label": 1}, "unit_id is over 256 bytes"),
        ({"unit_id": True, "at": AT, "label": 1}, "not feedback"),
        ({"unit_id": "N1", "at": AT}, "no item holds"),
        ({"unit_id": "N1", "at": AT, "name": "label"}, "name and value come together"),
        ({"unit_id": "N1", "at": AT, "value": 1}, "name and value come together"),
        ({"unit_id": "N1", "at": AT, "name": "label", "value": 1, "label": 1}, "'label' is said twice"),
        ({"unit_id": "N1", "at": AT, "name": "minutes", "value": 1, "outcomes": {"minutes": 1}}, "said twice"),
        ({"unit_id": "N1", "at": AT, "name": "minutes", "value": "many"}, "minutes: expected a number, got text"),
        ({"unit_id": "N1", "at": AT, "outcomes": {"label": 1}}, "say label"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_reason(item: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        read(item)


def test_journals_from_before_units_are_read() -> None:
    """Records are arrays, so what they gained stands at their end."""
    old = msgspec.msgpack.encode(["fs", [["f", "e", ID, 0, "label", 1.0, None, 5, 6]]])
    assert msgspec.msgpack.decode(old, type=Feedbacks).items == [Feedback("e", ID, 0, "label", 1.0, None, 5, 6)]
