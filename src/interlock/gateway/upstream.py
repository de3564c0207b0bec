"""A replica as the gateway sees it: one connection, waiting requests as one columnar message, no timer.

At most two batches are in flight; what arrives meanwhile waits and becomes the next, larger batch. So the batch grows with the
load and nobody waits for a clock.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import msgspec
import numpy as np

from interlock.core.errors import PredictionFailed, Unavailable
from interlock.model.columns import Column, pack
from interlock.model.signature import Signature
from interlock.model.wire import BatchRequest, decode_answer, frame, frames

IN_FLIGHT = 2
MAX_ROWS = 4096
RECONNECT_SECONDS = 0.05


class LostReplica(Unavailable):
    """The connection broke before the answer came: another replica may still answer."""

    code = "lost_replica"


class Numbers(msgspec.Struct, frozen=True):
    """A model's numbers for one request, row after row, and the time its batch took in the model."""

    values: list[float]
    model_us: int


Future = asyncio.Future[Numbers]


class Replica(asyncio.Protocol):
    """Connects, and reconnects for as long as it is wanted."""

    def __init__(self, name: str, path: Path, signature: Signature) -> None:
        self.name = name
        self.path = path
        self.signature = signature
        self.load = 0
        """Requests waiting or in flight."""
        self._waiting: list[tuple[int, list[Column], Future]] = []
        self._sent: dict[int, list[tuple[int, Future]]] = {}
        self._number = 0
        self._scheduled = False
        self._wanted = True
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._connect())

    @property
    def live(self) -> bool:
        """Whether a verified server answers on its socket: it opens it only when ready."""
        return self._transport is not None

    def close(self) -> None:
        """Stop wanting it; answers of requests in flight still come."""
        self._wanted = False
        self._task.cancel()
        if self._sent or self._waiting:
            self._loop.call_later(0.1, self.close)
        elif self._transport is not None:
            self._transport.close()

    def ask(self, rows: int, columns: list[Column]) -> Future:
        """Numbers for checked columns.

        Raises (from the future):
            LostReplica: the server died or closed before it answered.
            PredictionFailed: the model raised on this request.
        """
        future: Future = self._loop.create_future()
        if self._transport is None:
            future.set_exception(LostReplica(f"replica {self.name} does not answer"))
            return future
        self.load += 1
        self._waiting.append((rows, columns, future))
        if not self._scheduled and len(self._sent) < IN_FLIGHT:
            self._scheduled = True
            self._loop.call_soon(self._flush)  # everything that arrives in this tick travels together
        return future

    def _flush(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._sent) < IN_FLIGHT and self._transport is not None:
            batch = self._take()
            if not batch:
                continue
            inputs = self.signature.inputs
            if len(batch) == 1:
                columns = batch[0][1]
            else:
                columns = [[] for _ in inputs]
                for _, parts, _ in batch:
                    for column, part in zip(columns, parts, strict=True):
                        column += part
            self._number += 1
            self._sent[self._number] = [(rows, future) for rows, _, future in batch]
            message = BatchRequest([rows for rows, _, _ in batch], pack(inputs, columns))
            self._transport.write(frame(self._number, message))

    def _take(self) -> list[tuple[int, list[Column], Future]]:
        """The next batch; whoever gave up meanwhile is left out."""
        rows, count = 0, 0
        for waiting in self._waiting:
            if count and rows + waiting[0] > MAX_ROWS:
                break
            rows, count = rows + waiting[0], count + 1
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        alive = [one for one in taken if not one[2].done()]
        self.load -= len(taken) - len(alive)
        return alive

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The server is there."""
        self._buffer.clear()
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Everybody who waits is told at once; they may go to another replica."""
        self._transport = None
        futures = [future for sent in self._sent.values() for _, future in sent]
        futures += [future for _, _, future in self._waiting]
        self._sent.clear()
        self._waiting.clear()
        self.load = 0
        for future in futures:
            if not future.done():
                future.set_exception(LostReplica(f"replica {self.name} went away before it answered"))
        if self._wanted:
            self._task = self._loop.create_task(self._connect())

    def data_received(self, data: bytes) -> None:
        """Answers, whole or in pieces."""
        self._buffer += data
        try:
            for number, payload in frames(self._buffer):
                self._deliver(self._sent.pop(number), payload)
        except (ValueError, KeyError, msgspec.DecodeError):
            if self._transport is not None:  # not our protocol, or an answer nobody asked for
                self._transport.abort()
            return
        self._flush()

    def _deliver(self, sent: list[tuple[int, Future]], payload: bytes) -> None:
        self.load -= len(sent)
        answer = decode_answer(payload)
        numbers: list[float] = np.frombuffer(answer.numbers).tolist()
        width, at = self.signature.width, 0
        fits = len(numbers) == width * sum(rows for rows, _ in sent)
        for i, (rows, future) in enumerate(sent):
            end = at + rows * width
            if future.done():
                pass  # its deadline is over and the client was told
            elif i in answer.failures:
                future.set_exception(PredictionFailed(answer.failures[i]))
            elif not fits:
                future.set_exception(PredictionFailed(f"replica {self.name} gave {len(numbers)} numbers for its batch"))
            else:
                future.set_result(Numbers(numbers[at:end], answer.model_us))
            at = end

    async def _connect(self) -> None:
        while True:
            try:
                await self._loop.create_unix_connection(lambda: self, str(self.path))
                return
            except (FileNotFoundError, ConnectionError, OSError):
                await asyncio.sleep(RECONNECT_SECONDS)
