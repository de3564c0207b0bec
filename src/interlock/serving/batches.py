"""The batch skin: frames of waiting requests on a Unix socket, answered in whatever order they are done."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import cast

import msgspec

from interlock.core.prompt import Prompt
from interlock.model.wire import BatchAnswer, decode_request, frame, frames
from interlock.serving.batching import Batcher
from interlock.serving.standing import Standing


class _Connection(asyncio.Protocol):
    def __init__(self, batcher: Batcher, standing: Standing) -> None:
        self.batcher = batcher
        self.standing = standing
        self.buffer = bytearray()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        try:
            for number, payload in frames(self.buffer):
                batch = decode_request(payload)
                if why := self.standing.refused_to_gateways():
                    self._write(number, BatchAnswer(b"", dict.fromkeys(range(len(batch.counts)), why), 0))
                    continue
                future = self.batcher.submit(batch)
                future.then(partial(self._reply, number, future))
        except (ValueError, msgspec.DecodeError):
            if self.transport is not None:  # no gateway of this format: there is nothing to answer it in
                self.transport.abort()

    def _reply(self, number: int, done: Prompt[BatchAnswer]) -> None:
        self._write(number, done.result())

    def _write(self, number: int, answer: BatchAnswer) -> None:
        if self.transport is not None:
            self.transport.write(frame(number, answer))


async def listen(path: Path, batcher: Batcher, standing: Standing) -> asyncio.Server:
    """Serve batches at `path`; a stale socket must be gone."""
    loop = asyncio.get_running_loop()
    return await loop.create_unix_server(lambda: _Connection(batcher, standing), str(path), backlog=128)
