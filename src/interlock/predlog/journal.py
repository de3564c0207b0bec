"""The journal: append-only segments that hold every record before its answer leaves.

A segment is `<id>.seg` in the gateway incarnation's folder: a header (magic, format, segment id, gateway id), then frames of
length, CRC-32 and msgpack payload. One `write()` per event-loop tick carries all records of that tick. The writer holds an
exclusive lock on the segment; whoever gets a shared one knows that it is sealed. After a restart a new incarnation starts new
segments: nothing is ever appended behind a torn tail.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import struct
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from interlock.core.errors import Corrupt, Unavailable
from interlock.core.files import sync_directory
from interlock.core.ids import uuid7
from interlock.core.prompt import Prompt
from interlock.predlog.record import FORMAT, Feedbacks, Heartbeat, Prediction, Record, Schema

HEADER = struct.Struct("<4sHxx16s16s")
FRAME = struct.Struct("<II")
MAGIC = b"ILKJ"
SEGMENT_BYTES = 64 * 1024 * 1024
FSYNC_SECONDS = 0.1
SPACE_SECONDS = 0.2
Fsync = Literal["never", "interval", "always"]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


class Journal:
    """Writes one gateway incarnation's records; used from one event loop.

    `append` puts a record into the tick's buffer; `written()` is done once that buffer is in the kernel (and on disk, with
    `fsync="always"`), so an answer that waits for it is never lost by `kill -9`.
    """

    def __init__(
        self, folder: Path, gateway: uuid.UUID, *, fsync: Fsync = "interval", reserve: int = 256 << 20
    ) -> None:
        self.folder = folder / str(gateway)
        self.gateway = gateway
        self.fsync = fsync
        self.reserve = reserve
        self.bytes_written = 0
        self._loop = asyncio.get_running_loop()
        self._buffer: list[bytes] = []
        self._waiting: list[Prompt[None]] = []
        self._scheduled = False
        self._file = -1
        self._size = 0
        self._schemas: set[str] = set()
        self._full = ""
        self._dirty = False
        self.folder.mkdir(parents=True, exist_ok=True)
        self._open_segment()
        self._tasks = [self._loop.create_task(self._watch_space())]
        if fsync == "interval":
            self._tasks.append(self._loop.create_task(self._sync_often()))

    def require_space(self) -> None:
        """Called before a request is numbered.

        Raises:
            Unavailable: free disk is down to the reserve; recovers by itself.
        """
        if self._full:
            raise Unavailable(self._full, next="free disk space under .interlock/journals")

    def append(self, record: Prediction | Feedbacks | Heartbeat, schema: Schema | None = None) -> None:
        """Put a record into this tick's buffer; its schema goes before it, once a segment."""
        if self._size > SEGMENT_BYTES and not self._buffer:
            with contextlib.suppress(OSError):  # a full disk: go on in the old segment, whose write will say so
                self._open_segment()
        if schema is not None and schema.package_digest not in self._schemas:
            self._schemas.add(schema.package_digest)
            self._buffer.append(_framed(_encode(schema)))
        self._buffer.append(_framed(_encode(record)))
        self._schedule()

    def written(self) -> Prompt[None]:
        """Done when everything appended so far is kept; a future for this caller alone.

        Raises (from the future):
            Unavailable: it could not be written; the caller must not answer.
        """
        future: Prompt[None] = Prompt(self._loop)
        self._waiting.append(future)
        self._schedule()
        return future

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._write)

    async def close(self) -> None:
        """Write what waits, sync and seal."""
        await self.written()
        for task in self._tasks:
            task.cancel()
        os.fsync(self._file)
        os.close(self._file)

    def _write(self) -> None:
        data, waiting = b"".join(self._buffer), self._waiting
        self._buffer, self._waiting, self._scheduled = [], [], False
        try:
            self._write_all(data)
        except OSError as error:
            self._undo(error)
            _settle(waiting, Unavailable(f"the prediction log cannot be written: {error.strerror}"))
            return
        self._dirty = True
        if self.fsync == "always":
            synced = self._loop.run_in_executor(None, os.fsync, self._file)
            synced.add_done_callback(lambda done: _settle(waiting, _not_synced(done.exception())))
        else:
            _settle(waiting, None)

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        self._size += len(data)
        self.bytes_written += len(data)

    def _undo(self, error: OSError) -> None:
        """Cut a half-written tick off, so that the segment ends with a whole frame, and start another segment later."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, self._size)
            os.lseek(self._file, self._size, os.SEEK_SET)
        self._schemas.clear()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            self._full = f"the disk under the prediction log is full ({error.strerror})"

    def _open_segment(self) -> None:
        segment = uuid7()
        hidden, final = self.folder / f".{segment}", self.folder / f"{segment}.seg"
        file = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        os.write(file, HEADER.pack(MAGIC, FORMAT, segment.bytes, self.gateway.bytes))
        os.rename(hidden, final)  # only now a reader can see it, already locked
        sync_directory(self.folder)
        if self._file >= 0:
            os.fsync(self._file)
            os.close(self._file)
        self._file, self._size, self._schemas = file, HEADER.size, set()

    async def _watch_space(self) -> None:
        while True:
            stat = os.statvfs(self.folder)
            free = stat.f_bavail * stat.f_frsize
            if free < self.reserve:
                self._full = (
                    f"the disk under the prediction log has {free >> 20} MiB left; {self.reserve >> 20} are kept free"
                )
            else:
                self._full = ""
            await asyncio.sleep(SPACE_SECONDS)

    async def _sync_often(self) -> None:
        while True:
            await asyncio.sleep(FSYNC_SECONDS)
            if self._dirty:
                self._dirty = False
                with contextlib.suppress(OSError):  # a rotated segment was synced and closed meanwhile
                    await self._loop.run_in_executor(None, os.fsync, self._file)


def _framed(payload: bytes) -> bytes:
    return FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def _not_synced(error: BaseException | None) -> Unavailable | None:
    return None if error is None else Unavailable(f"the prediction log cannot be synced: {error}")


def _settle(waiting: list[Prompt[None]], error: Unavailable | None) -> None:
    for future in waiting:
        if future.done():
            continue  # its client left
        if error is None:
            future.settle(None)
        else:
            future.fail(error)


class SegmentReader:
    """Reads one segment from a position on, while its writer may still append.

    `records` yields each record with the offset behind it; it ends at the last whole frame. `sealed` says that no more will
    come; a torn tail of a sealed segment was never answered and is left out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        head = os.pread(self._file, HEADER.size, 0)
        if len(head) < HEADER.size:
            raise Corrupt(f"{path.name} has no header")
        magic, number, segment, gateway = HEADER.unpack(head)
        if magic != MAGIC or number != FORMAT:
            raise Corrupt(f"{path.name} is no journal segment of format {FORMAT}")
        self.segment = str(uuid.UUID(bytes=segment))
        self.gateway = str(uuid.UUID(bytes=gateway))
        self.position = HEADER.size

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def sealed(self) -> bool:
        """Whether the writer has closed it, or is dead."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(self._file, fcntl.LOCK_UN)
        return True

    def size(self) -> int:
        """Bytes on disk."""
        return os.fstat(self._file).st_size

    def records(self, limit: int = 8 << 20) -> Iterator[tuple[Record, int]]:
        """Records behind `position`, about `limit` bytes of them; moves `position` along.

        Raises:
            Corrupt: a frame of a sealed segment does not match its checksum.
        """
        sealed = self.sealed()  # asked before reading: what is written later is read later
        data = os.pread(self._file, limit, self.position)
        if len(data) >= FRAME.size and len(data) == limit:
            length, _ = FRAME.unpack_from(data)
            if FRAME.size + length > limit:
                data = os.pread(self._file, FRAME.size + length, self.position)
        at, start, size, head, unpack, crc = 0, self.position, len(data), FRAME.size, FRAME.unpack_from, zlib.crc32
        while size - at >= head:
            length, checksum = unpack(data, at)
            end = at + head + length
            if length and end > size:
                return
            payload = data[at + head : end]
            if not length or crc(payload) != checksum:
                if not sealed:
                    return
                raise Corrupt(f"segment {self.segment}: the frame at byte {self.position} does not match its checksum")
            at = end
            self.position = start + end
            yield _decode(payload), self.position


def segments(folder: Path) -> list[Path]:
    """All segments on disk, oldest first."""
    return sorted(folder.glob("*/*.seg"), key=lambda path: path.name)
