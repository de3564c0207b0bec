"""What clients may say about predictions later, and what is refused before it reaches the journal."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from interlock.core.errors import InvalidRequest
from interlock.gateway.feedback import read_feedback
from interlock.predlog.record import Feedback

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
    assert [(one.prediction_id, one.row, one.name, one.value_num) for one in found] == [
        (ID, 2, "minutes", 7.0),
        (ID, 2, "label", 1.0),
    ]


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ({"prediction_id": ID, "label": "HUGE"}, "item 0: label: the number is beyond FP64"),
        ({"prediction_id": ID, "outcomes": {"minutes": "HUGE"}}, "item 0: minutes: the number is beyond FP64"),
        ({"prediction_id": ID, "label": 1, "at": "0001-01-01T00:00:00+01:00"}, "item 0: at: "),
        ({"prediction_id": ID, "label": 1, "at": "9999-12-31T23:59:59-01:00"}, "item 0: at: "),
        ({"prediction_id": ID, "label": 1, "at": 2**61}, "item 0: at: expected a time of the years 1 to 9999"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_reason(item: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        read(item)
