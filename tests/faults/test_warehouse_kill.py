"""Writers are killed with -9 and disks fill up: nothing is lost, nothing is there twice, the next one goes on."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from interlock.warehouse.ducklake import open_warehouse

pytestmark = pytest.mark.faults

RECORDER = """
import itertools, sys
from pathlib import Path
import pyarrow as pa
from interlock.core.ids import uuid7
from interlock.warehouse.ducklake import open_warehouse

warehouse = open_warehouse(Path(sys.argv[1]))
start = warehouse.marks().get("s", 0)
for position in itertools.count(start):
    ids = pa.array([uuid7().bytes for _ in range(200)], pa.uuid())
    numbers = pa.array(range(position * 200, position * 200 + 200), pa.int64())
    rows = pa.table({"prediction_id": ids, "seq": numbers, f"in_x{position % 7}": [0.5] * 200})
    warehouse.append({"predictions_e": rows}, {"s": position + 1})
    print(position + 1, flush=True)
"""

LOADER = """
import sys
from pathlib import Path
from interlock.warehouse.ducklake import open_warehouse

warehouse = open_warehouse(Path(sys.argv[1]))
warehouse.load(sys.argv[3], sys.argv[2], progress=lambda rows: print(rows, flush=True))
print("done", flush=True)
"""

FULL = """
import resource, signal, sys
from pathlib import Path
import pyarrow as pa
from interlock.core.errors import Unavailable
from interlock.warehouse.ducklake import open_warehouse

warehouse = open_warehouse(Path(sys.argv[1]))
rows = pa.table({"number": pa.array(range(500_000), pa.int64())})
warehouse.append({"numbers": rows.slice(0, 10)}, {"s": 1})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
try:
    warehouse.append({"few": rows.slice(0, 10), "numbers": rows}, {"s": 2})
except Unavailable as error:
    print(error.message, error.next)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
warehouse.append({"numbers": rows.slice(10, 10)}, {"s": 3})
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def lines_until_killed(writer: subprocess.Popen[str], first: int, delay: float) -> list[str]:
    """Kill it `delay` seconds after its `first` line, wherever that finds it; all lines it wrote."""
    assert writer.stdout is not None
    with writer:
        lines = [writer.stdout.readline() for _ in range(first)]
        killer = threading.Timer(delay, writer.send_signal, [signal.SIGKILL])
        killer.start()
        lines += writer.stdout.readlines()
        killer.join()
    assert writer.returncode == -signal.SIGKILL
    return [line.strip() for line in lines]


def test_commits_survive_kills_whole_and_once(tmp_path: Path) -> None:
    folder = tmp_path / "warehouse"
    warehouse = open_warehouse(folder, create=True)
    moments = random.Random(7)
    mark = 0
    for _ in range(4):
        lines = lines_until_killed(start(RECORDER, folder), first=2, delay=moments.uniform(0.0, 0.4))
        told = int(lines[-1])
        mark = warehouse.marks()["s"]
        assert mark in (told, told + 1)  # the last commit may have been killed before it could say so
        count = (
            "select count(*) as rows, count(distinct seq) as once, max(seq) + 1 as last from interlock.predictions_e"
        )
        assert warehouse.query(count).to_pylist() == [{"rows": mark * 200, "once": mark * 200, "last": mark * 200}]
    assert warehouse.query("select count(*) as n from interlock.outcomes_e where role is null").to_pylist() == [
        {"n": 0}
    ]
    assert warehouse.maintain().merged_files > 0
    assert warehouse.query("select count(*) as n from interlock.predictions_e").to_pylist() == [{"n": mark * 200}]


def test_a_killed_load_is_completed_by_loading_again(tmp_path: Path) -> None:
    folder = tmp_path / "warehouse"
    warehouse = open_warehouse(folder, create=True)
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    first.write_text("n\n1\n")
    second.write_text("n\n" + "".join(f"{i}\n" for i in range(400_000)))
    warehouse.load("appended", first)
    for table, before in (("appended", 1), ("new", 0)):
        lines = lines_until_killed(start(LOADER, folder, second, table), first=2, delay=0.0)
        assert lines[-1] != "done"
        assert (table in [info.name for info in warehouse.tables()]) == (before == 1)
        with start(LOADER, folder, second, table) as again:
            assert again.stdout is not None
            assert again.stdout.read().split()[-2:] == ["400000", "done"]
        count = f"select count(*) as rows, count(distinct n) as once from {table}"
        assert warehouse.query(count).to_pylist() == [{"rows": 400_000 + before, "once": 400_000}]
    assert warehouse.marks() == {}


def test_a_full_disk_is_said_and_passes(tmp_path: Path) -> None:
    folder = tmp_path / "warehouse"
    warehouse = open_warehouse(folder, create=True)
    with start(FULL, folder) as writer:
        assert writer.stdout is not None
        said = writer.stdout.read()
    assert writer.returncode == 0
    assert "cannot be written" in said
    assert "disk space" in said
    assert warehouse.marks() == {"s": 3}
    assert [info.name for info in warehouse.tables()] == ["interlock.numbers"]
    assert warehouse.query("select count(*) as n from interlock.numbers").to_pylist() == [{"n": 20}]
    assert len(list((folder / "data" / "interlock").rglob("*.parquet"))) == 2  # nothing of the one that failed
