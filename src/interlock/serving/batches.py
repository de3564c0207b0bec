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


class _Connection(asyncio.Protocol):
    def __init__(self, batcher: Batcher) -> None:
        self.batcher = batcher
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
                future = self.batcher.submit(decode_request(payload))
                future.then(partial(self._reply, number, future))
        except (ValueError, msgspec.DecodeError):
            if self.transport is not None:  # no gateway of this format: there is nothing to answer it in
                self.transport.abort()

    def _reply(self, number: int, done: Prompt[BatchAnswer]) -> None:
        if self.transport is not None:
            self.transport.write(frame(number, done.result()))


async def listen(path: Path, batcher: Batcher) -> asyncio.Server:
    """Serve batches at `path`; a stale socket must be gone."""
    return await asyncio.get_running_loop().create_unix_server(lambda: _Connection(batcher), str(path), backlog=128)
