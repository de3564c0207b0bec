"""Identifiers: what RFC 9562 says of version 7, in an order that never goes back."""

from __future__ import annotations

import time
import uuid

import pytest

from interlock.core import ids


def test_identifiers_are_uuid7_distinct_and_in_order() -> None:
    before = time.time_ns() // 1_000_000
    made = [ids.uuid7_text() for _ in range(20_000)] + [str(ids.uuid7())]
    after = time.time_ns() // 1_000_000
    assert made == sorted(set(made))
    read = [uuid.UUID(one) for one in made]
    assert {(one.version, one.variant) for one in read} == {(7, uuid.RFC_4122)}
    assert before <= read[0].int >> 80 <= after
    assert [str(one) for one in read] == made
    assert len({one.int & 0x3FFF_FFFF_FFFF_FFFF for one in read}) == len(read)


def test_more_in_a_millisecond_than_the_counter_holds_take_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_800_000_000_000_000_000)
    generator = ids._Generator()
    made = [generator.next() for _ in range(5000)]
    assert made == sorted(set(made))
    assert len({one[:13] for one in made}) == 2
