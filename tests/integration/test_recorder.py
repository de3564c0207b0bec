"""The recorder with real journals and a real warehouse."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import msgspec
import pyarrow as pa
import pytest

from interlock.core.errors import Unavailable
from interlock.core.ids import uuid7, uuid7_text
from interlock.core.project import Project
from interlock.core.spare import SpareTime
from interlock.predlog import batch, recorder
from interlock.predlog.journal import Journal, segments
from interlock.predlog.record import Feedback, Feedbacks, Field, Heartbeat, Prediction, Schema
from interlock.predlog.recorder import Recorder
from interlock.processes.recorder import maintain
from interlock.warehouse import maintenance
from interlock.warehouse.ducklake import DuckLakeWarehouse, open_warehouse

T = TypeVar("T")
RECORD_TWICE = """
import os, sys
from pathlib import Path
from interlock.core.spare import SpareTime
from interlock.predlog.recorder import Recorder
from interlock.warehouse.ducklake import open_warehouse

folder = Path(sys.argv[1])
warehouse = open_warehouse(folder / "warehouse", create=True, threads=1)
spare = SpareTime()
for journals in ("first", "second"):
    (folder / journals).rename(folder / "journals")
    made = Recorder(folder / "journals", warehouse, print, spare=spare)
    made.step(flush=True)
    (folder / "journals").rename(folder / f"{journals} done")
print(sum(os.sched_getscheduler(int(thread)) == os.SCHED_IDLE for thread in os.listdir("/proc/self/task")))
"""
AT = 1_790_000_000_000_000
BLANK = Prediction(
    prediction_id="", request_id="", endpoint="", received_at=AT, event_time=AT, unit_id="u", unit_source="client",
    experiment="", phase=1, arm="champion", propensity=1.0, model="m", version=1, package_digest="", route_revision=1,
    outcome="answered", reason="", latency_us=3000, model_us=1000, seq=0, rows=1, inputs=[], outputs=[],
)  # fmt: skip
SCHEMAS = (
    Schema("sha256:a", (Field("x", "float"),), (Field("score", "float"),)),
    Schema("sha256:b", (Field("x", "float"), Field("y", "string")), (Field("label", "int"),)),
)
COUNT = 60
ROWS = COUNT // 4 * (1 + 1 + 2 + 3) + COUNT // 7 + 2
"""That `write` makes of so many predictions: of requests (one without an answer is a row), feedback, heartbeats."""


@asynccontextmanager
async def journal(folder: Path) -> AsyncIterator[Journal]:
    made = Journal(folder, uuid7(), fsync="never", reserve=0)
    try:
        yield made
    finally:
        await made.close()


async def write(folder: Path, count: int, writers: int = 1) -> None:
    """So many predictions by each of them, of none to three rows, of two packages at two endpoints; feedback; heartbeats."""
    for _ in range(writers):
        async with journal(folder) as one:
            for seq in range(1, count + 1):
                schema, rows = SCHEMAS[seq % 2], seq % 4
                inputs: list[Any] = [[0.5 * seq] * rows, ["ä"] * rows][: len(schema.inputs)] if rows else []
                outputs: list[list[Any]] = [[seq] * rows] if rows else []
                record = msgspec.structs.replace(
                    BLANK, prediction_id=uuid7_text(), endpoint=f"e{seq % 3 > 0:d}", seq=seq, rows=rows, inputs=inputs,
                    outputs=outputs, package_digest=schema.package_digest, rules=["r"] * (seq % 5 == 0),
                )  # fmt: skip
                one.append(record, schema)
                if seq % 7 == 0:
                    said = Feedback(record.endpoint, record.prediction_id, 0, "label", 1.0, None, AT + seq, AT + seq)
                    one.append(Feedbacks([said]))
            one.append(Heartbeat(str(one.gateway), AT, {"e0": count, "e1": count}, True))
            await one.written()


def everything(warehouse: DuckLakeWarehouse) -> dict[str, list[dict[str, Any]]]:
    return {
        name: warehouse.query(f"select * from interlock.{name} order by all").to_pylist()
        for name in ("predictions_e0", "predictions_e1", "feedback_e0", "feedback_e1", "gateways")
    }


class Watched:
    """A warehouse that notes how much is appended."""

    def __init__(self, warehouse: DuckLakeWarehouse) -> None:
        self.warehouse = warehouse
        self.commits: list[int] = []

    def append(self, tables: Mapping[str, pa.Table], marks: Mapping[str, int]) -> int:
        self.commits.append(sum(map(len, tables.values())))
        return self.warehouse.append(tables, marks)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.warehouse, name)


async def test_what_is_written_leaves_the_disk_while_others_go_on(tmp_path: Path) -> None:
    """A gateway that never rests must not keep the segments of one that has gone."""
    folder, said = tmp_path / "journals", list[str]()
    gone, busy = (Journal(folder, uuid7(), fsync="never", reserve=0) for _ in range(2))

    async def beat(journal: Journal, number: int) -> None:
        journal.append(Heartbeat(str(journal.gateway), number, {"endpoint": number}, False))
        await journal.written()

    await beat(gone, 1)
    await gone.close()
    with closing(open_warehouse(tmp_path / "warehouse", create=True, threads=1)) as warehouse:
        recorder = Recorder(folder, warehouse, said.append)
        for number in range(1, 4):
            await beat(busy, number)
            recorder.step(flush=True)
        assert [path.parent.name for path in segments(folder)] == [str(busy.gateway)]
        assert not gone.folder.exists()
        await busy.close()
        recorder.step(flush=True)
        assert not segments(folder)
        assert not said


@pytest.mark.parametrize(("piece", "rows"), [(64, 40), (700, 20_000), (2 << 20, 7)])
async def test_the_size_of_pieces_and_batches_makes_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int, rows: int
) -> None:
    await write(tmp_path / "journals", COUNT, writers=2)
    found = []
    for name in ("at once", "in parts"):
        folder = tmp_path / name / "journals"
        for path in segments(tmp_path / "journals"):
            (folder / path.parent.name).mkdir(parents=True)
            (folder / path.parent.name / path.name).write_bytes(path.read_bytes())
        with closing(open_warehouse(tmp_path / name / "warehouse", create=True, threads=1)) as warehouse:
            Recorder(folder, warehouse, pytest.fail, spare=SpareTime()).step(flush=True)
            found.append(everything(warehouse))
        assert not segments(folder)
        monkeypatch.setattr(recorder, "PIECE_BYTES", piece)
        monkeypatch.setattr(batch, "BATCH_ROWS", rows)
    assert found[0] == found[1]
    assert sum(map(len, found[0].values())) == 2 * ROWS


async def test_a_look_takes_one_batch_and_says_that_more_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks it is told to stop, and opens the warehouse anew; who is behind would not come to that otherwise."""
    monkeypatch.setattr(batch, "BATCH_ROWS", 30)
    monkeypatch.setattr(recorder, "PIECE_BYTES", 1000)
    await write(tmp_path / "journals", COUNT)
    with closing(open_warehouse(tmp_path / "warehouse", create=True, threads=1)) as warehouse:
        sink = Watched(warehouse)
        made = Recorder(tmp_path / "journals", sink, pytest.fail)
        assert made.step()
        (first,) = sink.commits
        assert 30 <= first < COUNT
        made.run(threading.Event(), until=time.monotonic() + 3.0)
        assert made.rows == sum(sink.commits) == ROWS
        assert max(sink.commits) < COUNT


async def test_a_look_comes_to_its_end_while_records_keep_coming(tmp_path: Path) -> None:
    loop, looks = asyncio.get_running_loop(), list[None]()

    async def beat() -> None:
        one.append(Heartbeat(str(one.gateway), AT, {"e0": 1}, False))
        await one.written()

    class Meanwhile(SpareTime):
        """Whenever a piece was read, there is something new."""

        def call(self, work: Callable[[], T]) -> T:
            done = work()
            asyncio.run_coroutine_threadsafe(beat(), loop).result()
            looks.append(None)
            assert len(looks) < 20, "it looks again and again"
            return done

    async with journal(tmp_path / "journals") as one:
        await beat()
        with closing(open_warehouse(tmp_path / "warehouse", create=True, threads=1)) as warehouse:
            made = Recorder(tmp_path / "journals", warehouse, pytest.fail, spare=Meanwhile())
            await asyncio.to_thread(made.step)
    assert looks


async def test_who_is_late_no_longer_waits_for_spare_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked(SpareTime):
        """Notes the calls."""

        calls = 0

        def call(self, work: Callable[[], T]) -> T:
            self.calls += 1
            return super().call(work)

    for number, late in enumerate((1e9, 0.0)):
        monkeypatch.setattr(recorder, "LATE_SECONDS", late)
        folder, spare = tmp_path / str(number), Asked()
        await write(folder / "journals", 5)
        with closing(open_warehouse(folder / "warehouse", create=True, threads=1)) as warehouse:
            Recorder(folder / "journals", warehouse, pytest.fail, spare=spare).step(flush=True)
        assert (spare.calls > 0) == (late > 0.0)


async def test_threads_of_libraries_do_not_wait_for_spare_time(tmp_path: Path) -> None:
    """Who is late needs them, too."""
    for name in ("first", "second"):
        await write(tmp_path / name, COUNT)
    command = [sys.executable, "-c", RECORD_TWICE, str(tmp_path)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("1", "")


def test_maintenance_goes_on_after_a_defect_of_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(tmp_path)
    for commit in range(3):
        with closing(open_warehouse(project.warehouse, create=True)) as warehouse:
            warehouse.append({"numbers": pa.table({"n": list(range(100))})}, {"s": commit + 1})
    files = project.warehouse / "data" / "interlock" / "numbers"
    merge, stop = maintenance.merge, threading.Event()

    def broken(engine: DuckLakeWarehouse) -> int:
        monkeypatch.setattr(maintenance, "merge", merge)
        raise duckdb.InternalException("INTERNAL Error: assertion\n\nStack Trace:\n...")

    monkeypatch.setattr(maintenance, "merge", broken)
    keeper = threading.Thread(target=maintain, args=(project, stop, 0.01))
    keeper.start()
    try:
        deadline = time.monotonic() + 60
        while len(list(files.iterdir())) < 4 and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        stop.set()
        keeper.join()
    assert len(list(files.iterdir())) == 4  # the merged one beside those that readers may still want
    assert "will be tried again in 0 s: InternalException: INTERNAL Error: assertion\n" in capsys.readouterr().out


@pytest.mark.parametrize("renewed", [False, True])
async def test_a_commit_that_failed_is_made_before_anything_else(tmp_path: Path, *, renewed: bool) -> None:
    """The rows of before, and those that came since, are there once; what was staged is not staged again."""
    staged = 0

    class Failing(Watched):
        """A warehouse that others keep locked, at first."""

        def stage(self, tables: Mapping[str, pa.Table]) -> Mapping[str, pa.Table]:
            nonlocal staged
            staged += 1
            return self.warehouse.stage(tables)

        def append(self, tables: Mapping[str, pa.Table], marks: Mapping[str, int]) -> int:
            if len(self.commits) < 2:
                self.commits.append(0)
                raise Unavailable("somebody keeps the lock")
            return super().append(tables, marks)

    await write(tmp_path / "journals", COUNT)
    with (
        closing(open_warehouse(tmp_path / "warehouse", create=True, threads=1)) as warehouse,
        closing(open_warehouse(tmp_path / "warehouse", threads=1)) as other,
    ):
        made = Recorder(tmp_path / "journals", Failing(warehouse), pytest.fail, spare=SpareTime())
        for _ in range(2):
            with pytest.raises(Unavailable):
                made.step(flush=True)
        assert staged == 1
        await write(tmp_path / "journals", COUNT)
        if renewed:
            made.sink = other
        made.step(flush=True)
        assert staged == 2 - renewed
        assert sum(map(len, everything(warehouse).values())) == made.rows == 2 * ROWS
        assert not segments(tmp_path / "journals")
