"""The journal gives back what was put in, whatever happens to its tail."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.core.errors import Corrupt, Unavailable
from interlock.core.ids import uuid7
from interlock.predlog import journal as journals
from interlock.predlog.journal import FRAME, HEADER, Journal, SegmentReader, segments
from interlock.predlog.record import Field, Heartbeat, Record, Schema

COUNTS = st.lists(st.integers(0, 40), min_size=1, max_size=8)


def beats(count: int) -> list[Heartbeat]:
    return [Heartbeat(str(uuid7()), i, {f"endpoint-{i % 3}": i * 7}, False) for i in range(count)]


async def write(folder: Path, ticks: list[list[Heartbeat]]) -> None:
    journal = Journal(folder, uuid7(), fsync="never", reserve=0)
    for tick in ticks:
        for record in tick:
            journal.append(record)
        if tick:
            await journal.written()
    await journal.close()


def read(path: Path, limit: int = 1 << 20) -> list[Record]:
    reader = SegmentReader(path)
    found: list[Record] = []
    try:
        while True:
            some = [record for record, _ in reader.records(limit)]
            if not some:
                return found
            found += some
    finally:
        reader.close()


@given(counts=COUNTS, limit=st.integers(FRAME.size, 2000))
def test_what_was_appended_is_read_in_order(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], limit: int
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    ticks = [beats(count) for count in counts]
    asyncio.run(write(folder, ticks))
    found = [record for path in segments(folder) for record in read(path, limit)]
    assert found == [record for tick in ticks for record in tick]


@given(count=st.integers(1, 20), cut=st.integers(0, 3000))
def test_a_torn_tail_is_left_out_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, count: int, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    written = beats(count)
    asyncio.run(write(folder, [written]))
    (path,) = segments(folder)
    os.truncate(path, max(HEADER.size, path.stat().st_size - cut))
    found = read(path)
    assert found == written[: len(found)]
    assert cut == 0 or len(found) < count
    whole = sum(FRAME.size + length for length in _lengths(path))
    assert path.stat().st_size - HEADER.size - whole < FRAME.size + 200


def _lengths(path: Path) -> list[int]:
    data, at, found = path.read_bytes(), HEADER.size, []
    while at + FRAME.size <= len(data):
        length, _ = FRAME.unpack_from(data, at)
        if at + FRAME.size + length > len(data):
            break
        found.append(length)
        at += FRAME.size + length
    return found


@given(count=st.integers(1, 10), data=st.data())
def test_a_flipped_bit_in_a_sealed_segment_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, count: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("flip")
    written = beats(count)
    asyncio.run(write(folder, [written]))
    (path,) = segments(folder)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(HEADER.size + FRAME.size, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        found = read(path)
    except Corrupt:
        return
    assert found == written[: len(found)]  # a length that now points behind the end looks like a torn tail
    assert len(found) < count


def test_a_segment_is_sealed_only_when_its_writer_has_let_go(tmp_path: Path) -> None:
    async def run() -> None:
        journal = Journal(tmp_path, uuid7(), fsync="always", reserve=0)
        journal.append(beats(1)[0])
        await journal.written()
        (path,) = segments(tmp_path)
        reader = SegmentReader(path)
        assert not reader.sealed()
        assert len(list(reader.records())) == 1
        await journal.close()
        assert reader.sealed()
        reader.close()

    asyncio.run(run())


def test_segments_rotate_and_repeat_their_schemas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "SEGMENT_BYTES", 200)
    schema = Schema("sha256:1", (Field("a", "float"),), ())

    async def run() -> None:
        journal = Journal(tmp_path, uuid7(), fsync="never", reserve=0)
        for record in beats(20):
            journal.append(record, schema)
            await journal.written()
        await journal.close()

    asyncio.run(run())
    assert len(segments(tmp_path)) > 3
    for path in segments(tmp_path):
        records = read(path)
        assert not records or records[0] == schema


def test_without_free_disk_requests_are_refused_before_they_are_numbered(tmp_path: Path) -> None:
    async def run() -> None:
        journal = Journal(tmp_path, uuid7(), fsync="never", reserve=1 << 62)
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="kept free"):
            journal.require_space()
        await journal.close()

    asyncio.run(run())
