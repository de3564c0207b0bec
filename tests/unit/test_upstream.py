"""What a replica's answer means to who waits for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from interlock.core.errors import DeadlineExceeded, PredictionFailed
from interlock.gateway import upstream
from interlock.gateway.upstream import LostReplica, Numbers, Replica
from interlock.model.columns import Packed, pack
from interlock.model.signature import Input, Signature
from interlock.model.wire import TOO_LATE, BatchAnswer, decode_request, frame, frames

SIGNATURE = Signature("regression", (Input("x", "float"),))


async def test_work_that_was_left_undone_is_a_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model server may say so before the gateway has looked at its deadlines."""
    monkeypatch.setattr(upstream, "SWEEP_SECONDS", 60.0)
    failures, ready, over = [TOO_LATE, "the disk is full"], asyncio.Event(), asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        buffer = bytearray()
        while data := await reader.read(1 << 16):
            buffer += data
            for number, payload in frames(buffer):
                asked = decode_request(payload).counts
                writer.write(frame(number, BatchAnswer(b"", {0: failures.pop(0)} if asked else {}, 1)))
                ready.set()
        writer.close()
        over.set()

    server = await asyncio.start_unix_server(listen, str(tmp_path / "r.sock"))
    replica = Replica("r", tmp_path / "r.sock", SIGNATURE)
    await ready.wait()
    columns, end = pack(SIGNATURE, ([1.0],)), asyncio.get_running_loop().time() + 60
    with pytest.raises(DeadlineExceeded):
        await _asked(replica, columns, end)
    with pytest.raises(PredictionFailed, match="the disk is full"):
        await _asked(replica, columns, end)
    replica.close()
    await over.wait()
    server.close()
    await server.wait_closed()


async def _asked(replica: Replica, columns: Packed, end: float) -> Numbers:
    """As soon as it is live."""
    while True:
        try:
            return await replica.ask(1, columns, end)
        except LostReplica:
            await asyncio.sleep(0.01)
