"""Times that clients write: read exactly, or refused."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from interlock.core.clock import from_us, iso, parse_time, to_us
from interlock.core.errors import InvalidRequest
from interlock.gateway.questions import time_of

BEYOND = ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"]


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2013-06-01T10:00:00-04:00"])
def test_a_time_keeps_its_microseconds(text: str) -> None:
    at = parse_time(text)
    assert from_us(to_us(at)) == at == datetime.fromisoformat(iso(at)) == datetime.fromisoformat(text)
    assert at.tzinfo is UTC


@pytest.mark.parametrize("text", ["", "soon", "2013-06-01T10:00:00", *BEYOND])
def test_what_is_no_time_in_utc_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"offset|format|9999"):
        parse_time(text)


@pytest.mark.parametrize("text", BEYOND)
def test_a_client_is_told_of_it(text: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"at: expected ISO 8601.*{text[:10]}"):
        time_of(text, "at")
