"""The recorder with real journals and a real warehouse."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from interlock.core.ids import uuid7
from interlock.predlog.journal import Journal, segments
from interlock.predlog.record import Heartbeat
from interlock.predlog.recorder import Recorder
from interlock.warehouse.ducklake import open_warehouse


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
