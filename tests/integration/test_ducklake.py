"""The embedded warehouse as its owner meets it: in plain DuckDB, in a folder that moved, beside writers of the same process."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from interlock.core.errors import Conflict, NotFound, Unavailable
from interlock.core.files import locked
from interlock.core.ids import uuid7
from interlock.warehouse import maintenance
from interlock.warehouse.ducklake import open_warehouse, statement


def plain_duckdb() -> duckdb.DuckDBPyConnection:
    """DuckDB with the two extensions that a plain one would install from the network."""
    connection = duckdb.connect()
    for name in ("sqlite_scanner", "ducklake"):
        folder = Path(str(import_module(f"duckdb_extension_{name}").__file__)).parent
        connection.execute(f"load '{folder}/extensions/v{duckdb.__version__}/{name}.duckdb_extension'")
    return connection


def numbers(start: int, rows: int = 100) -> dict[str, pa.Table]:
    return {"numbers": pa.table({"n": pa.array(range(start, start + rows), pa.int64())})}


def test_plain_duckdb_reads_it_and_cannot_write(tmp_path: Path) -> None:
    folder = tmp_path / "it's here"
    warehouse = open_warehouse(folder, create=True)
    ids = pa.array([uuid7().bytes], pa.uuid())
    warehouse.append({"predictions_flight_delay": pa.table({"prediction_id": ids, "role": ["live"]})}, {})
    with plain_duckdb() as connection:
        connection.execute(statement(folder))
        found = connection.execute("select role, label, mature from lake.interlock.outcomes_flight_delay").fetchall()
        assert found == [("live", None, False)]
        with pytest.raises(duckdb.Error, match="read-only"):
            connection.execute("delete from lake.interlock.predictions_flight_delay")


def test_a_log_from_before_feedback_by_unit_takes_it(tmp_path: Path) -> None:
    """Labels that are there stay there; who opens the log next looks at what waits."""
    prediction_id, at = uuid7(), pa.array([datetime(2026, 1, 1, tzinfo=UTC)], pa.timestamp("us", "UTC"))
    ids, nobody = (pa.array([one], pa.uuid()) for one in (prediction_id.bytes, None))
    asked = {
        "prediction_id": ids, "row": pa.array([0], pa.int32()), "role": ["live"], "unit_id": ["N1"], "event_time": at,
        "unit_source": ["client"], "outcome": ["answered"],
    }  # fmt: skip
    said = {
        "prediction_id": ids, "row": pa.array([0], pa.int32()), "name": ["label"], "value_num": [1.0], "at": at,
        "received_at": at, "position": [1],
    }  # fmt: skip
    labels = "select label, outcomes from interlock.outcomes_e"
    with closing(open_warehouse(tmp_path / "warehouse", create=True)) as warehouse:
        warehouse.append({"predictions_e": pa.table(asked), "feedback_e": pa.table(said)}, {})
        with warehouse.transaction() as session:
            session.run("drop view writer.interlock.outcomes_e")
            for column in ("unit_id", "since", "ambiguous"):
                session.run(f"alter table writer.interlock.feedback_e drop column {column}")
    by_unit = {"prediction_id": nobody, "name": ["cost"], "position": [2], "unit_id": ["N1"], "since": at}
    with closing(open_warehouse(tmp_path / "warehouse")) as warehouse:
        warehouse.attribute()
        warehouse.append({"predictions_e": pa.table({**asked, "unit_id": ["N2"], "in_x": [1.0]})}, {})
        warehouse.append({"feedback_e": pa.table({**said, **by_unit, "row": pa.nulls(1, pa.int32())})}, {})
    with closing(open_warehouse(tmp_path / "warehouse")) as warehouse:
        warehouse.attribute()
        seen = [tuple(row.values()) for row in warehouse.query(f"{labels} where unit_id = 'N1'").to_pylist()]
        assert seen == [(1.0, [("cost", 1.0)])]
        before = warehouse.snapshot()
        warehouse.attribute()
        assert warehouse.snapshot() == before


def test_a_log_that_was_written_row_by_row_goes_on(tmp_path: Path) -> None:
    """Before rows came as files they were inserted; both are read and merged as one."""
    columns = {"role": ["live"], "in_x": [8.0], "in_y": ["a"]}

    def rows() -> dict[str, pa.Table]:
        return {"predictions_e": pa.table({"prediction_id": pa.array([uuid7().bytes], pa.uuid()), **columns})}

    said = """
        select count(*) as n, count(distinct prediction_id) as ids, sum(in_x) as x, count(in_y) as y
        from interlock.predictions_e where role = 'live'
    """
    expected = [{"n": 7, "ids": 7, "x": 44.0, "y": 4}]
    with closing(open_warehouse(tmp_path / "warehouse", create=True)) as warehouse:
        warehouse.append(rows(), {})
        for _ in range(3):
            with warehouse.transaction() as session:
                one = "select uuidv7() as prediction_id, 4.0 as in_x, 'live' as role"
                session.run(f"insert into writer.interlock.predictions_e by name {one}")
            warehouse.append(rows(), {})
        assert warehouse.query(said).to_pylist() == expected
    with closing(open_warehouse(tmp_path / "warehouse")) as warehouse:
        assert warehouse.maintain(grace=timedelta(0)).merged_files >= 7
        assert warehouse.query(said).to_pylist() == expected


def test_a_project_may_move(tmp_path: Path) -> None:
    warehouse = open_warehouse(tmp_path / "old", create=True)
    warehouse.append(numbers(0), {"s": 1})
    then = warehouse.snapshot()
    warehouse.close()
    shutil.move(tmp_path / "old", tmp_path / "new")
    moved = open_warehouse(tmp_path / "new")
    moved.append(numbers(100), {"s": 2})
    count = "select count(*) as n from interlock.numbers"
    assert moved.query(count).to_pylist() == [{"n": 200}]
    assert moved.query(count, snapshot=then).to_pylist() == [{"n": 100}]
    assert not (tmp_path / "old").exists()
    with plain_duckdb() as connection:
        connection.execute(statement(tmp_path / "new"))
        assert connection.execute("select count(*) from lake.interlock.numbers").fetchall() == [(200,)]


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no warehouse"):
        open_warehouse(tmp_path / "nowhere")
    with pytest.raises(NotFound):
        open_warehouse(tmp_path / "nowhere", create=True, read_only=True)
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot be made"):
        open_warehouse(tmp_path / "file" / "warehouse", create=True)


def test_lost_data_files_are_said_and_the_rest_is_read(tmp_path: Path) -> None:
    warehouse = open_warehouse(tmp_path / "warehouse", create=True)
    warehouse.append(numbers(0), {"s": 1})
    shutil.rmtree(tmp_path / "warehouse" / "data")
    with pytest.raises(Unavailable, match="numbers"):
        warehouse.query("select sum(n) from interlock.numbers")
    assert warehouse.marks() == {"s": 1}


def test_read_only_reads_and_does_not_write(tmp_path: Path) -> None:
    writing = open_warehouse(tmp_path / "warehouse", create=True)
    reading = open_warehouse(tmp_path / "warehouse", read_only=True)
    writing.append(numbers(0), {"s": 1})
    assert reading.query("select count(*) as n from interlock.numbers").to_pylist() == [{"n": 100}]
    for write in (lambda: reading.append(numbers(0), {}), lambda: reading.pin("x", 1), reading.maintain):
        with pytest.raises(Conflict, match="read-only"):
            write()


def test_one_load_at_a_time_and_readers_wait_for_nobody(tmp_path: Path) -> None:
    warehouse = open_warehouse(tmp_path / "warehouse", create=True)
    (tmp_path / "t.csv").write_text("a\n1\n")
    warehouse.load("t", tmp_path / "t.csv")
    with locked(tmp_path / "warehouse" / "load.lock"), pytest.raises(Conflict, match="load"):
        warehouse.load("t", tmp_path / "t.csv")
    with locked(tmp_path / "warehouse" / "write.lock"):
        assert warehouse.query("from t").to_pylist() == [{"a": 1}]
        assert warehouse.snapshot() > 0


def test_rows_move_when_nobody_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB's SQLite scanner plans with a row id of one moment and reads at another: a merge in between empties the table."""
    monkeypatch.setattr(maintenance, "PAUSE_SECONDS", 0.01)
    warehouse = open_warehouse(tmp_path / "warehouse", create=True)
    for commit in range(3):
        warehouse.append(numbers(100 * commit), {"s": commit + 1})
    other = open_warehouse(tmp_path / "warehouse", read_only=True)
    with other.reading() as session:
        assert warehouse.maintain().merged_files == 0
        assert warehouse.query("select count(*) as n from interlock.numbers").to_pylist() == [{"n": 300}]
        assert session.rows("select count(*) from interlock.numbers") == [(300,)]
    assert warehouse.maintain().merged_files == 3
    assert other.query("select count(*) as n from interlock.numbers").to_pylist() == [{"n": 300}]


def test_threads_share_one(tmp_path: Path) -> None:
    """Each append is there once; whoever reads meanwhile sees whole commits, whatever maintenance does."""
    warehouse = open_warehouse(tmp_path / "warehouse", create=True)
    warehouse.append(numbers(0), {"start": 1})
    done = threading.Event()

    def read() -> int:
        seen = 0
        while not done.is_set():
            (row,) = warehouse.query(
                "select count(*) as n, count(distinct n) as once from interlock.numbers"
            ).to_pylist()
            assert row["n"] == row["once"]
            assert row["n"] % 100 == 0
            assert row["n"] >= seen
            seen = row["n"]
        return seen

    def write(name: int) -> None:
        for commit in range(5):
            warehouse.append(numbers(1000 * name + 100 * commit), {f"w{name}": commit + 1})
            if commit == 2:
                warehouse.maintain()

    with ThreadPoolExecutor(4) as pool:
        reader = pool.submit(read)
        writers = [pool.submit(write, name) for name in (1, 2)]
        try:
            for writer in writers:
                writer.result()
        finally:
            done.set()
        assert reader.result() <= 1100
    assert warehouse.marks() == {"start": 1, "w1": 5, "w2": 5}
    assert warehouse.query("select count(distinct n) as n from interlock.numbers").to_pylist() == [{"n": 1100}]
