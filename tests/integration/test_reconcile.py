"""The proof that the log is whole, against logs in a real warehouse from which somebody took, or to which somebody added."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from interlock.core.ids import uuid7_text
from interlock.predlog.reconcile import Held, Reconciliation, read_held, reconcile
from interlock.predlog.record import Heartbeat, Prediction
from interlock.predlog.rows import heartbeat_table, prediction_tables
from interlock.warehouse.ducklake import DuckLakeWarehouse, open_warehouse

START = 1_790_000_000_000_000
STEP = 100_000
"""Microseconds from one request to the next."""
PATIENCE = 5.0

BLANK = Prediction(
    prediction_id="", request_id="", endpoint="flight-delay", received_at=0, event_time=0, unit_id="u", unit_source="client",
    experiment="", phase=1, arm="champion", propensity=1.0, model="m", version=1, package_digest="", route_revision=1,
    outcome="answered", reason="", latency_us=3000, model_us=1000, seq=0, rows=1, inputs=[], outputs=[],
)  # fmt: skip


class Log:
    """A log that is written request by request; `ids` are the answers that clients hold."""

    def __init__(self, warehouse: DuckLakeWarehouse) -> None:
        self.warehouse = warehouse
        self.ids: dict[tuple[str, int], str] = {}

    def put(self, gateway: str, numbers: Iterable[int], rows: int = 1, **more: Any) -> None:
        """Requests with these numbers, a tenth of a second apart."""
        records = []
        for number in numbers:
            values = {
                "prediction_id": self.ids.setdefault((gateway, number), uuid7_text()),
                "received_at": START + number * STEP,
                "seq": number,
                "rows": rows,
                **more,
            }
            records.append((gateway, msgspec.structs.replace(BLANK, **values)))
        self.warehouse.append(prediction_tables(records, {}), {})

    def beat(
        self, gateway: str, last: int, *, seconds: float, final: bool = False, endpoint: str = "flight-delay"
    ) -> None:
        """What the gateway says of itself, so many seconds after the start."""
        said = Heartbeat(gateway, START + round(seconds * 1e6), {endpoint: last}, final)
        self.warehouse.append({"gateways": heartbeat_table([said])}, {})

    def check(self, held: Iterable[Held] = (), *, heartbeats: bool = True) -> Reconciliation:
        """Reconcile."""

        def query(sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
            rows: list[dict[str, Any]] = self.warehouse.query(sql, parameters).to_pylist()
            return rows

        return reconcile(query, "flight-delay", held, patience=PATIENCE, heartbeats=heartbeats)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    warehouse = open_warehouse(tmp_path / "warehouse", create=True)
    warehouse.append({"gateways": heartbeat_table([Heartbeat(GATEWAY, START, {"other": 99}, True)])}, {})
    yield Log(warehouse)
    warehouse.close()


GATEWAY, OTHER = str(uuid.UUID(int=7 << 76 | 1 << 63)), str(uuid.UUID(int=7 << 76 | 1 << 63 | 1))


def test_a_whole_log_is_whole(log: Log) -> None:
    log.put(GATEWAY, range(1, 101))
    log.beat(GATEWAY, 40, seconds=4)
    log.beat(GATEWAY, 100, seconds=10, final=True)
    log.put(OTHER, range(1, 31), rows=3)
    log.put(OTHER, [31], rows=0, outcome="invalid")
    found = log.check(Held(one) for one in log.ids.values())
    assert found.whole
    assert (found.predictions, found.rows, found.checked, found.in_flight) == (131, 100 + 90 + 1, 131, 0)
    told = {one.gateway: (one.last_seq, one.recorded, one.final) for one in found.gateways}
    assert told == {GATEWAY: (100, 100, True), OTHER: (31, 31, False)}


def test_a_row_that_came_twice_is_doubled(log: Log) -> None:
    log.put(GATEWAY, range(1, 11), rows=2)
    log.put(GATEWAY, [4], rows=2)
    found = log.check()
    assert (found.duplicates, found.incomplete, found.whole) == (2, 0, False)
    log.put(GATEWAY, [4], rows=2, role="shadow")
    assert log.check().duplicates == 2


def test_a_request_without_one_of_its_rows_is_incomplete(log: Log) -> None:
    log.put(GATEWAY, range(1, 4), rows=3)
    table = prediction_tables([(OTHER, msgspec.structs.replace(BLANK, prediction_id=uuid7_text(), seq=1, rows=3))], {})
    name, rows = table.popitem()
    log.warehouse.append({name: rows.take([0, 2])}, {})
    found = log.check()
    assert (found.duplicates, found.incomplete, found.whole) == (0, 1, False)


def test_every_gap_of_a_gateway_that_said_goodbye_is_a_loss(log: Log) -> None:
    log.put(GATEWAY, [1, 2, 4, 5, 6])
    log.beat(GATEWAY, 8, seconds=1, final=True)
    found = log.check()
    assert (found.lost, found.in_flight, found.whole) == (3, 0, False)


def test_what_was_under_way_when_a_gateway_was_killed_is_no_loss(log: Log) -> None:
    log.put(GATEWAY, [*range(1, 95), 96, 97, 100])
    log.beat(GATEWAY, 102, seconds=10.3)
    found = log.check()
    assert (found.lost, found.in_flight, found.whole) == (0, 5, True)


def test_a_request_cannot_have_been_under_way_for_longer_than_its_deadline(log: Log) -> None:
    log.put(GATEWAY, [*range(1, 20), *range(22, 90), *range(91, 101)])
    found = log.check()
    assert (found.lost, found.in_flight) == (2, 1)


def test_a_heartbeat_dates_what_never_came(log: Log) -> None:
    log.put(GATEWAY, range(1, 11))
    log.beat(GATEWAY, 12, seconds=2)
    assert (log.check().lost, log.check().in_flight) == (0, 2)
    log.beat(GATEWAY, 13, seconds=20)
    assert (log.check().lost, log.check().in_flight) == (2, 1)


def test_an_incarnation_that_recorded_nothing_is_counted_too(log: Log) -> None:
    log.put(GATEWAY, range(1, 3))
    log.beat(OTHER, 3, seconds=3, final=True)
    found = log.check()
    assert found.lost == 3
    assert [one.recorded for one in found.gateways] == [2, 0]


def test_ids_that_a_client_holds_are_looked_for_with_their_rows(log: Log) -> None:
    log.put(GATEWAY, [1, 2], rows=2)
    log.put(GATEWAY, [3], role="shadow")
    first, second, shadow = log.ids.values()
    stranger = uuid7_text()
    held = read_held(
        f'{first}\n\n{{"prediction_id": "{second}", "rows": 2}}\n{{"prediction_id": "{second}", "rows": 3}}\n'
    )
    found = log.check([*held, Held(stranger), Held(shadow), Held("no id")])
    assert sorted(found.missing_ids) == sorted([second, stranger, shadow, "no id"])
    assert (found.checked, found.whole) == (6, False)
    with pytest.raises(ValueError, match="line 2"):
        read_held(f'{first}\n{{"prediction_id": 3}}')


def test_before_the_first_heartbeat_the_numbers_alone_count(tmp_path: Path) -> None:
    log = Log(open_warehouse(tmp_path / "young", create=True))
    log.put(GATEWAY, [*range(1, 60), 61, *range(62, 130)])
    found = log.check(heartbeats=False)
    assert (found.predictions, found.lost, found.gateways[0].final) == (128, 1, False)
    log.warehouse.close()
