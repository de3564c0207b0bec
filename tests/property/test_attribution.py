"""Feedback by unit against its definition, whatever was recorded in which order and however often the recorder looked."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.core.clock import to_us
from interlock.core.ids import uuid7_text
from interlock.predlog.record import Feedback, Prediction
from interlock.predlog.rows import feedback_tables, prediction_tables
from interlock.warehouse.ducklake import DuckLakeWarehouse, open_warehouse

GATEWAY = uuid7_text()
MINUTE = 60_000_000
T0 = to_us(datetime(2026, 1, 1, tzinfo=UTC))
WINDOW = 4
COUNTER = itertools.count()


class Asked(msgspec.Struct, frozen=True):
    """A request; times in minutes."""

    unit: str
    at: int
    rows: int = 1
    outcome: Any = "answered"
    role: Any = "live"
    source: Any = "client"

    @property
    def counts(self) -> bool:
        return (self.role, self.source) == ("live", "client") and self.outcome in ("answered", "fallback", "refused")


class Said(msgspec.Struct, frozen=True):
    """A value, of the unit or of a request by its number."""

    about: str | int
    at: int
    name: str
    value: float
    received: int


Event = Asked | Said
asked = st.builds(
    Asked,
    unit=st.sampled_from("aab"),
    at=st.integers(0, 9),
    rows=st.sampled_from([1, 1, 2]),
    outcome=st.sampled_from(["answered"] * 3 + ["fallback", "refused", "timeout", "invalid"]),
    role=st.sampled_from(["live"] * 4 + ["shadow"]),
    source=st.sampled_from(["client"] * 4 + ["request"]),
)
said = st.builds(
    Said,
    about=st.one_of(st.sampled_from("aabc"), st.integers(0, 3)),
    at=st.integers(0, 15),
    name=st.sampled_from(["label", "revenue"]),
    value=st.integers(0, 99).map(float),
    received=st.integers(0, 3),
)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckLakeWarehouse]:
    with closing(open_warehouse(tmp_path_factory.mktemp("log") / "warehouse", create=True, threads=1)) as made:
        yield made


def prediction(endpoint: str, one: Asked, prediction_id: str) -> Prediction:
    moment = T0 + one.at * MINUTE
    return Prediction(
        prediction_id=prediction_id, request_id="", endpoint=endpoint, received_at=moment, event_time=moment,
        unit_id=one.unit, unit_source=one.source, experiment="", phase=1, arm="champion", propensity=1.0, model="m",
        version=1, package_digest="", route_revision=1, outcome=one.outcome, reason="", latency_us=1, model_us=1, seq=1,
        rows=one.rows, inputs=[], outputs=[], role=one.role,
    )  # fmt: skip


def feedback(endpoint: str, one: Said, ids: Sequence[str]) -> Feedback:
    by_unit = isinstance(one.about, str)
    number = 0 if by_unit else int(one.about)
    return Feedback(
        endpoint=endpoint, prediction_id="" if by_unit else ids[number] if number < len(ids) else uuid7_text(), row=0,
        name=one.name, value_num=one.value, value_text=None, at=T0 + one.at * MINUTE,
        received_at=T0 + one.received * MINUTE, unit_id=str(one.about) if by_unit else "",
    )  # fmt: skip


def record(
    warehouse: DuckLakeWarehouse, batches: Sequence[tuple[Sequence[tuple[int, Event]], bool]], requests: Sequence[Asked]
) -> tuple[str, list[str]]:
    """Append batches of numbered events, looking after those that say so; the endpoint, and the requests' ids."""
    endpoint, ids = f"e{next(COUNTER)}", [uuid7_text() for _ in requests]
    for batch, look in batches:
        predictions = [
            (GATEWAY, prediction(endpoint, one, ids[number])) for number, one in batch if isinstance(one, Asked)
        ]
        values = [(number, feedback(endpoint, one, ids)) for number, one in batch if isinstance(one, Said)]
        tables = prediction_tables(predictions, {}) | feedback_tables(values, timedelta(minutes=WINDOW))
        warehouse.append(tables, {})
        if look:
            warehouse.attribute()
    warehouse.attribute()
    return endpoint, ids


def meant(one: Said, requests: Sequence[Asked]) -> tuple[int | None, bool]:
    """The number of the request that a value is about, and whether that is ambiguous."""
    if isinstance(one.about, int):
        return (one.about if one.about < len(requests) else None), False
    times = [
        other.at
        for other in requests
        if other.counts and other.unit == one.about and one.at - WINDOW <= other.at <= one.at
    ]
    last = [
        number
        for number, other in enumerate(requests)
        if times and other.counts and other.unit == one.about and other.at == max(times)
    ]
    return (last[-1], len(last) > 1 or requests[last[-1]].rows > 1) if last else (None, False)


def check(
    warehouse: DuckLakeWarehouse, endpoint: str, ids: Sequence[str], requests: Sequence[Asked], values: Sequence[Said]
) -> None:
    """Both what is stored and what the view of outcomes makes of it."""
    found = warehouse.query(
        f'select position, prediction_id, "row", orphan, ambiguous from interlock.feedback_{endpoint} where unit_id is not null'
    ).to_pylist()
    expected = {}
    for position, one in enumerate(values):
        if isinstance(one.about, str):
            number, ambiguous = meant(one, requests)
            subject = (None, None) if number is None else (ids[number], 0)
            expected[position] = (*subject, number is None, ambiguous)
    assert {row.pop("position"): tuple(row.values()) for row in found} == expected
    latest: dict[tuple[int, str], tuple[tuple[int, int], float]] = {}
    for position, one in enumerate(values):
        number, _ = meant(one, requests)
        if number is not None and requests[number].role == "live":
            moment = (one.received, position)
            key = (number, one.name)
            latest[key] = max(latest.get(key, (moment, one.value)), (moment, one.value))
    view = warehouse.query(
        f"select prediction_id, label, outcomes['revenue'] as revenue from interlock.outcomes_{endpoint}"
    ).to_pylist()
    told = {
        (ids.index(row["prediction_id"]), name): row[column]
        for row in view
        for name, column in (("label", "label"), ("revenue", "revenue"))
        if row[column] is not None
    }
    assert told == {key: value for key, (_, value) in latest.items()}


@settings(max_examples=12)
@given(
    data=st.data(),
    requests=st.lists(asked, min_size=1, max_size=12),
    values=st.lists(said, min_size=1, max_size=12),
)
def test_the_units_last_prediction_in_the_window(
    warehouse: DuckLakeWarehouse, data: st.DataObject, requests: list[Asked], values: list[Said]
) -> None:
    events: list[tuple[int, Event]] = data.draw(st.permutations([*enumerate(requests), *enumerate(values)]))
    sizes = data.draw(st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=3))
    left = iter(events)
    batches = [(list(itertools.islice(left, size)), look) for size, look in sizes]
    endpoint, ids = record(warehouse, [*batches, (list(left), True)], requests)
    check(warehouse, endpoint, ids, requests, values)


EDGES: list[tuple[list[tuple[int, dict[str, Any]]], int | None]] = [
    ([(9, {})], 0),
    ([(9 - WINDOW, {})], 0),
    ([(10, {})], None),
    ([(9 - WINDOW - 1, {})], None),
    ([(9, {"source": "request"})], None),
    ([(7, {}), (8, {"role": "shadow"}), (8, {"outcome": "timeout"}), (6, {})], 0),
    ([(7, {}), (8, {"outcome": "refused"})], 1),
    ([(8, {}), (8, {}), (7, {"rows": 2})], 1),
    ([(8, {"rows": 3})], 0),
]
"""Requests of a unit at minutes, and the one that a value at minute 9 is about."""


@pytest.mark.parametrize("first", ["feedback", "predictions", "neither"])
def test_edges_and_ties(warehouse: DuckLakeWarehouse, first: str) -> None:
    requests, values = list[Asked](), list[Said]()
    for unit, (given_, number) in enumerate(EDGES):
        before = len(requests)
        requests += [Asked(f"unit {unit}", at, **more) for at, more in given_]
        values.append(Said(f"unit {unit}", 9, "label", float(unit), 1))
        assert meant(values[-1], requests)[0] == (None if number is None else before + number)
    asked_: list[tuple[int, Event]] = [*enumerate(requests)]
    said_: list[tuple[int, Event]] = [*enumerate(values)]
    batches = {
        "feedback": [(said_, True), (asked_, False)],
        "predictions": [(asked_, True), (said_, False)],
        "neither": [(asked_ + said_, False)],
    }
    endpoint, ids = record(warehouse, batches[first], requests)
    check(warehouse, endpoint, ids, requests, values)


def test_an_ambiguous_label_says_so(warehouse: DuckLakeWarehouse) -> None:
    requests = [Asked("a", 8, rows=2), Asked("b", 8)]
    values = [Said("a", 9, "label", 1.0, 1), Said("b", 9, "label", 0.0, 1)]
    endpoint, _ = record(warehouse, [([*enumerate(requests), *enumerate(values)], False)], requests)
    view = warehouse.query(
        f'select unit_id, "row", label, label_ambiguous from interlock.outcomes_{endpoint} order by all'
    ).to_pylist()
    assert [tuple(row.values()) for row in view] == [("a", 0, 1.0, True), ("a", 1, None, False), ("b", 0, 0.0, False)]
