"""The law of `warehouse.port.Warehouse` about the log: commits, outcomes, writers beside each other, what is kept."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.warehouses import rows

from interlock.core.errors import InvalidData, NotFound
from interlock.core.ids import uuid7
from interlock.warehouse.port import Warehouse

FLIGHTS = "predictions_flight_delay"
FEEDBACK = "feedback_flight_delay"
T0 = datetime(2026, 1, 1, tzinfo=UTC)

WRITERS = """
import sys
from pathlib import Path
import pyarrow as pa
from interlock.warehouse.ducklake import open_warehouse

name, folder = sys.argv[1:]
warehouse = open_warehouse(Path(folder))
print("ready", flush=True)
sys.stdin.readline()
for commit in range(6):
    rows = pa.table({"writer": [name] * 40, "number": pa.array(range(commit * 40, commit * 40 + 40), pa.int64())})
    warehouse.append({"counts": rows}, {name: commit + 1})
"""


def predictions(ids: list[uuid.UUID], *, minutes: int = 0, **more: Any) -> pa.Table:
    n = len(ids)
    at = pa.array([T0 + timedelta(minutes=minutes)] * n, pa.timestamp("us", "UTC"))
    return pa.table(
        {
            "prediction_id": pa.array([one.bytes for one in ids], pa.uuid()),
            "row": pa.array([0] * n, pa.int32()),
            "role": ["live"] * n,
            "received_at": at,
            "event_time": at,
            "unit_id": [f"N{i}" for i in range(n)],
            "rules": pa.array([[]] * n, pa.list_(pa.string())),
            "propensity": [0.8] * n,
            "version": pa.array([1] * n, pa.int32()),
            "out_score": [0.25] * n,
        }
        | more
    )


def feedback(said: list[tuple[uuid.UUID, str, float | None]], *, minutes: int = 60, position: int = 0) -> pa.Table:
    n = len(said)
    at = pa.array([T0 + timedelta(minutes=minutes)] * n, pa.timestamp("us", "UTC"))
    return pa.table(
        {
            "prediction_id": pa.array([one.bytes for one, _, _ in said], pa.uuid()),
            "row": pa.array([0] * n, pa.int32()),
            "name": [name for _, name, _ in said],
            "value_num": pa.array([value for _, _, value in said], pa.float64()),
            "value_text": pa.array([None if value is not None else "late" for _, _, value in said], pa.string()),
            "at": at,
            "received_at": at,
            "position": pa.array([position + i for i in range(n)], pa.int64()),
        }
    )


def test_rows_and_marks_are_one_commit(warehouse: Warehouse, again: Callable[[], Warehouse]) -> None:
    ids = [uuid7() for _ in range(20)]
    snapshot = warehouse.append({FLIGHTS: predictions(ids)}, {"s1": 100})
    assert snapshot == warehouse.snapshot()
    broken = predictions(ids, out_score=["high"] * 20)
    with pytest.raises(InvalidData, match="DOUBLE before, now VARCHAR"):
        warehouse.append({"gateways": pa.table({"endpoint": ["x"]}), FLIGHTS: broken}, {"s1": 200})
    assert warehouse.marks() == {"s1": 100}
    assert "interlock.gateways" not in [table.name for table in warehouse.tables()]
    warehouse.append({FLIGHTS: predictions([uuid7()]), "gateways": pa.table({"endpoint": ["x"]})}, {"s1": 300, "s2": 7})
    assert again().marks() == {"s1": 300, "s2": 7}
    assert rows(warehouse, f"select count(*), count(distinct prediction_id) from interlock.{FLIGHTS}") == [(21, 21)]
    warehouse.forget_marks({"s1", "unknown"})
    assert warehouse.marks() == {"s2": 7}


def test_nothing_is_committed_for_nothing(warehouse: Warehouse) -> None:
    before = warehouse.snapshot()
    assert warehouse.append({}, {}) == before
    assert warehouse.append({FLIGHTS: predictions([])}, {}) == before
    assert warehouse.snapshot() == before


def test_columns_come_when_they_are_first_logged(warehouse: Warehouse) -> None:
    one, two = uuid7(), uuid7()
    warehouse.append({FLIGHTS: predictions([one], in_Carrier=pa.array(["AA"]).dictionary_encode())}, {})
    warehouse.append({FLIGHTS: predictions([two], in_hour=pa.array([7], pa.int64()), minutes=1)}, {})
    columns = {table.name: table.columns for table in warehouse.tables()}[f"interlock.{FLIGHTS}"]
    assert list(columns)[:4] == ["prediction_id", "row", "role", "request_id"]
    assert (columns["prediction_id"], columns["rules"], columns["propensity"]) == ("UUID", "VARCHAR[]", "DOUBLE")
    assert (columns["in_Carrier"], columns["in_hour"]) == ("VARCHAR", "BIGINT")
    seen = rows(
        warehouse, "select prediction_id, in_Carrier, in_hour from interlock.outcomes_flight_delay order by event_time"
    )
    assert seen == [(str(one), "AA", None), (str(two), None, 7)]
    with pytest.raises(InvalidData, match=r"input 'hour' .* BIGINT before, now VARCHAR"):
        warehouse.append({FLIGHTS: predictions([uuid7()], in_hour=["seven"])}, {})


def test_the_latest_feedback_counts(warehouse: Warehouse) -> None:
    one, two, three = uuid7(), uuid7(), uuid7()
    shadow = predictions([one], role=["shadow"])
    warehouse.append({FLIGHTS: pa.concat_tables([predictions([one, two, three]), shadow])}, {})
    warehouse.append(
        {FEEDBACK: feedback([(one, "label", 0.0), (one, "revenue", 5.0), (two, "label", None)], minutes=30)}, {}
    )
    warehouse.append({FEEDBACK: feedback([(one, "label", 0.25)], minutes=90, position=5)}, {})
    warehouse.append({FEEDBACK: feedback([(one, "label", 1.0)], minutes=90, position=9)}, {})
    warehouse.append({FEEDBACK: feedback([(one, "label", 0.5)], minutes=60, position=99)}, {})
    seen = rows(
        warehouse,
        "select prediction_id, label, label_num, label_text, label_delay_s, label_at, outcomes "
        "from interlock.outcomes_flight_delay order by prediction_id",
    )
    half, late = T0 + timedelta(minutes=30), T0 + timedelta(minutes=90)
    assert seen == [
        (str(one), 1.0, 1.0, None, 5400.0, late, [("revenue", 5.0)]),
        (str(two), None, None, "late", 1800.0, half, None),
        (str(three), None, None, None, None, None, None),
    ]


def test_rows_ripen_with_the_endpoints_own_label_delay(warehouse: Warehouse) -> None:
    old, labelled, fresh = uuid7(), uuid7(), uuid7()
    warehouse.append({FLIGHTS: predictions([old], minutes=0)}, {})
    assert rows(warehouse, "select mature from interlock.outcomes_flight_delay") == [(False,)]  # nobody knows yet
    warehouse.append({FLIGHTS: predictions([labelled], minutes=30)}, {})
    warehouse.append({FEEDBACK: feedback([(labelled, "label", 1.0)], minutes=50)}, {})
    warehouse.append({FLIGHTS: predictions([fresh], minutes=55)}, {})
    seen = dict(rows(warehouse, "select prediction_id, mature from interlock.outcomes_flight_delay"))
    assert seen == {str(old): True, str(labelled): True, str(fresh): False}


def test_feedback_may_come_first_and_is_an_orphan_until_its_prediction_comes(warehouse: Warehouse) -> None:
    early, never, known, together = (uuid7() for _ in range(4))
    count = f"select prediction_id from interlock.{FEEDBACK} where orphan order by all"
    warehouse.append({FEEDBACK: feedback([(early, "label", 1.0), (never, "label", 1.0)])}, {})
    assert rows(warehouse, "select count(*) from interlock.outcomes_flight_delay") == [(0,)]
    warehouse.append({FLIGHTS: predictions([known])}, {})
    warehouse.append(
        {
            FEEDBACK: feedback([(together, "label", 1.0), (known, "label", 0.0)]),
            FLIGHTS: predictions([together, early]),
        },
        {},
    )
    assert rows(warehouse, count) == [(str(early),), (str(never),)]
    assert warehouse.maintain().cleared_orphans == 1
    assert rows(warehouse, count) == [(str(never),)]
    assert rows(warehouse, "select count(label) from interlock.outcomes_flight_delay") == [(3,)]


def _writer(name: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITERS, name, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_several_processes_append_at_once(again: Callable[[], Warehouse], tmp_path: Path) -> None:
    warehouse = again()
    names = ["w0", "w1", "w2", "w3"]
    with ExitStack() as stack:
        writers = [stack.enter_context(_writer(name, tmp_path / "warehouse")) for name in names]
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("go\n")
            writer.stdin.close()
    assert [writer.returncode for writer in writers] == [0] * len(names)
    assert warehouse.marks() == dict.fromkeys(names, 6)
    count = "select writer, count(*), count(distinct number) from interlock.counts group by all order by all"
    assert rows(warehouse, count) == [(name, 240, 240) for name in names]


# keeping


def test_pinned_snapshots_outlive_maintenance(warehouse: Warehouse) -> None:
    taken = [warehouse.append({FLIGHTS: predictions([uuid7() for _ in range(20)])}, {"s": i}) for i in range(6)]
    warehouse.pin("model:1", taken[1])
    warehouse.pin("model:2", taken[0])
    warehouse.pin("model:2", taken[3])
    assert warehouse.pins() == {"model:1": taken[1], "model:2": taken[3]}
    done = warehouse.maintain(keep=timedelta(0), grace=timedelta(0))
    assert done.expired_snapshots > 0
    assert done.merged_files >= 6
    assert done.deleted_files > 0
    count = f"select count(*) from interlock.{FLIGHTS}"
    assert rows(warehouse, count) == [(120,)]
    assert rows(warehouse, count, snapshot=taken[1]) == [(40,)]
    assert rows(warehouse, count, snapshot=taken[3]) == [(80,)]
    assert warehouse.marks() == {"s": 5}
    for snapshot in (taken[0], taken[2], 10**6):
        with pytest.raises(NotFound):
            warehouse.query(count, snapshot=snapshot)
        with pytest.raises(NotFound):
            warehouse.pin("late", snapshot)
    warehouse.unpin("model:1")
    warehouse.unpin("model:1")
    warehouse.maintain(keep=timedelta(0), grace=timedelta(0))
    with pytest.raises(NotFound):
        warehouse.query(count, snapshot=taken[1])
    assert warehouse.pins() == {"model:2": taken[3]}


def test_merged_files_stay_for_those_who_read_them(warehouse: Warehouse) -> None:
    for commit in range(3):
        warehouse.append({FLIGHTS: predictions([uuid7() for _ in range(20)])}, {"s": commit + 1})
    done = warehouse.maintain(grace=timedelta(minutes=1))
    assert done.merged_files >= 3
    assert done.deleted_files == 0
    done = warehouse.maintain(grace=timedelta(0))
    assert done.merged_files == 0
    assert done.deleted_files >= 3


def test_maintenance_of_the_tidy_does_nothing(warehouse: Warehouse) -> None:
    warehouse.append({FLIGHTS: predictions([uuid7() for _ in range(20)])}, {"s": 1})
    warehouse.maintain()
    before = warehouse.snapshot()
    done = warehouse.maintain()
    assert (done.merged_files, done.expired_snapshots, done.deleted_files) == (0, 0, 0)
    assert warehouse.snapshot() == before


def test_files_from_before_a_column_came_are_merged(warehouse: Warehouse, again: Callable[[], Warehouse]) -> None:
    """Who opens the log later merges what lies before and after, as often as it likes; old snapshots stay as they were."""
    ids = iter([uuid7() for _ in range(100)])
    taken = []
    for commit in range(9):
        more: dict[str, Any] = (
            {} if commit < 3 else {"in_x": [1.0] * 10} if commit < 6 else {"in_x": [2.0] * 10, "in_y": [3.0] * 10}
        )
        batch = [next(ids) for _ in range(10)]
        tables = {FLIGHTS: predictions(batch, **more)}
        if commit > 4:
            tables[FEEDBACK] = feedback([(one, "label", 1.0) for one in batch])
        taken.append(warehouse.append(tables, {"s": commit + 1}))
    for snapshot in (taken[2], taken[5]):
        warehouse.pin(f"model:{snapshot}", snapshot)
    said = f"select count(*), count(distinct prediction_id) from interlock.{FLIGHTS}"
    columns = f"select count(in_x), sum(in_x), count(in_y) from interlock.{FLIGHTS}"
    for turn in range(3):
        keeper = again()
        done = keeper.maintain(keep=timedelta(0), grace=timedelta(0))
        assert (done.merged_files >= 9) is (turn == 0)
        assert keeper.maintain(keep=timedelta(0), grace=timedelta(0)).merged_files == 0
        for reader in (warehouse, keeper, again()):
            assert rows(reader, said) == [(90 + turn, 90 + turn)]
            assert rows(reader, columns) == [(60, 90.0, 30)]
            assert rows(reader, said, snapshot=taken[2]) == [(30, 30)]
            assert rows(reader, said, snapshot=taken[5]) == [(60, 60)]
            assert rows(reader, "select count(label) from interlock.outcomes_flight_delay") == [(40,)]
        warehouse.append({FLIGHTS: predictions([next(ids)])}, {"s": 10 + turn})
