"""A replica as the gateway sees it: one connection, waiting requests as one columnar message, no timer.

At most two batches are in flight; what arrives meanwhile waits and becomes the next, larger batch. So the batch grows with the
load and nobody waits for a clock. A replica that is silent for far longer than it ever takes is ejected: who waits for it goes
to another one. It is asked again as soon as it says something.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import msgspec
import numpy as np

from interlock.core.errors import DeadlineExceeded, PredictionFailed, Unavailable
from interlock.core.prompt import Prompt
from interlock.gateway.metrics import ROWS, Histogram
from interlock.model.columns import Packed, join
from interlock.model.signature import Signature
from interlock.model.wire import BatchAnswer, BatchRequest, decode_answer, frame, frames

IN_FLIGHT = 2
MAX_ROWS = 4096
RECONNECT_SECONDS = 0.05
SWEEP_SECONDS = 0.02
"""So much later than its deadline a request is told at the most."""
SILENT_SECONDS = 0.3
SILENT_FACTOR = 20
"""Silent: nothing came for so many times the usual time of a batch, and at least `SILENT_SECONDS`."""
LIES_SECONDS, LIES_LIMIT = 1.0, 60.0
"""A replica whose answers do not fit their questions is left alone for so long, twice as long each time."""


class LostReplica(Unavailable):
    """The connection broke before the answer came: another replica may still answer."""

    code = "lost_replica"


class Numbers(msgspec.Struct, frozen=True):
    """A model's numbers for one request, row after row, and the time its batch took in the model."""

    values: list[float]
    model_us: int


Future = Prompt[Numbers]


class Waiting(NamedTuple):
    """A request that travels with the next batch; `deadline` on the loop's clock."""

    rows: int
    columns: Packed
    deadline: float
    future: Future


class Sent(NamedTuple):
    """A batch on its way, since when."""

    at: float
    requests: list[Waiting]


class Replica(asyncio.Protocol):
    """Connects, and reconnects for as long as it is wanted."""

    def __init__(self, name: str, path: Path, signature: Signature) -> None:
        self.name = name
        self.path = path
        self.signature = signature
        self.load = 0
        """Requests waiting or in flight."""
        self.ejections = 0
        self.batches = Histogram(ROWS)
        self._ejected = False
        self._usual = 0.0
        self._lies = LIES_SECONDS
        self._pause = 0.0
        self._waiting: list[Waiting] = []
        self._sent: dict[int, Sent] = {}
        self._number = 0
        self._scheduled = False
        self._sweeping = False
        self._wanted = True
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._connect())

    @property
    def live(self) -> bool:
        """Whether a verified server answers on its socket: it opens it only when ready."""
        return self._transport is not None and not self._ejected

    def close(self) -> None:
        """Stop wanting it; answers of requests in flight still come."""
        self._wanted = False
        self._task.cancel()
        if self._sent or self._waiting:
            self._loop.call_later(0.1, self.close)
        elif self._transport is not None:
            self._transport.close()

    def ask(self, rows: int, columns: Packed, deadline: float) -> Future:
        """Numbers for packed columns; after `deadline` (on the loop's clock) the server need not begin.

        Raises (from the future):
            LostReplica: the server died, closed or fell silent before it answered.
            DeadlineExceeded: it did not answer in time.
            PredictionFailed: the model raised on this request.
        """
        future: Future = Prompt(self._loop)
        if self._transport is None:
            future.set_exception(LostReplica(f"replica {self.name} does not answer"))
            return future
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP_SECONDS, self._sweep)
        self.load += 1
        self._waiting.append(Waiting(rows, columns, deadline, future))
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
            self._number += 1
            counts = [one.rows for one in batch]
            self.batches.add(sum(counts))
            now = self._loop.time()
            self._sent[self._number] = Sent(now, batch)
            left = int((max(one.deadline for one in batch) - now) * 1e6)
            message = BatchRequest(counts, join([one.columns for one in batch]), left)
            self._transport.write(frame(self._number, message))

    def _take(self) -> list[Waiting]:
        """The next batch; whoever gave up meanwhile is left out."""
        rows, count = 0, 0
        for waiting in self._waiting:
            if count and rows + waiting.rows > MAX_ROWS:
                break
            rows, count = rows + waiting.rows, count + 1
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        alive = [one for one in taken if not one.future.done()]
        self.load -= len(taken) - len(alive)
        return alive

    def _sweep(self) -> None:
        """Tell those whose deadline is over: one look at all of them is cheaper than a timer for each."""
        now = self._loop.time()
        batches = [sent.requests for sent in self._sent.values()]
        for requests in (*batches, self._waiting):
            for one in requests:
                if one.deadline <= now and not one.future.done():
                    one.future.fail(DeadlineExceeded("no answer within TIMEOUT_SECOND"))
        self._sweeping = bool(self.load)
        if self._sweeping:
            self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def silent(self, now: float) -> bool:
        """Whether the oldest batch on its way has been for far longer than is usual."""
        oldest = next(iter(self._sent.values()), None)
        return oldest is not None and now - oldest.at > max(SILENT_SECONDS, SILENT_FACTOR * self._usual)

    def eject(self, message: str) -> None:
        """Ask it nothing until it speaks again; who waits may go to another replica."""
        self._ejected = True
        self.ejections += 1
        self._tell_all(message)

    def _tell_all(self, message: str) -> None:
        """Who waits may go to another replica; a batch on its way stays known, so that its late answer is no surprise."""
        waiting = [one for sent in self._sent.values() for one in sent.requests] + self._waiting
        self._waiting = []
        self.load = 0
        self._sent = {number: Sent(sent.at, []) for number, sent in self._sent.items()}
        for one in waiting:
            if not one.future.done():
                one.future.fail(LostReplica(message))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The server is there."""
        self._buffer.clear()
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Everybody who waits is told, and the connection made again."""
        self._transport = None
        self._ejected = False
        self._tell_all(f"replica {self.name} went away before it answered")
        self._sent.clear()
        if self._wanted:
            self._task = self._loop.create_task(self._connect())

    def data_received(self, data: bytes) -> None:
        """Answers, whole or in pieces."""
        self._buffer += data
        try:
            for number, payload in frames(self._buffer):
                answer = decode_answer(payload)
                self._check(self._sent[number], answer)
                self._deliver(self._sent.pop(number), answer)
        except (ValueError, KeyError, msgspec.DecodeError) as error:
            self._distrust(error)
            return
        self._flush()

    def _check(self, sent: Sent, answer: BatchAnswer) -> None:
        """Whether it is an answer to that question.

        Raises:
            ValueError: it is not.
        """
        asked = self.signature.width * sum(one.rows for one in sent.requests)
        numbers, rest = divmod(len(answer.numbers), 8)
        if sent.requests and (
            rest or numbers not in (0, asked) or (not numbers and len(answer.failures) < len(sent.requests))
        ):
            raise ValueError(f"{numbers} numbers for a batch of {asked}")

    def _distrust(self, error: Exception) -> None:
        """It answers what nobody asked: cut it off, and come back later, each time twice as late."""
        self.eject(f"replica {self.name} does not speak our protocol: {error}")
        self._pause, self._lies = self._lies, min(2 * self._lies, LIES_LIMIT)
        if self._transport is not None:
            self._transport.abort()

    def _deliver(self, sent: Sent, answer: BatchAnswer) -> None:
        self._ejected = False
        self._usual = 0.9 * self._usual + 0.1 * (self._loop.time() - sent.at)
        self.load -= len(sent.requests)
        self._lies = LIES_SECONDS
        numbers: list[float] = np.frombuffer(answer.numbers).tolist()
        width, at = self.signature.width, 0
        for i, one in enumerate(sent.requests):
            end = at + one.rows * width
            if one.future.done():
                pass  # its deadline is over and the client was told
            elif i in answer.failures:
                one.future.fail(PredictionFailed(answer.failures[i]))
            else:
                one.future.settle(Numbers(numbers[at:end], answer.model_us))
            at = end

    async def _connect(self) -> None:
        await asyncio.sleep(self._pause)
        self._pause = 0.0
        while True:
            try:
                await self._loop.create_unix_connection(lambda: self, str(self.path))
                return
            except (FileNotFoundError, ConnectionError, OSError):
                await asyncio.sleep(RECONNECT_SECONDS)


def eject_silent(replicas: Sequence[Replica]) -> None:
    """Eject those that are silent, as long as another one is left to ask."""
    now = asyncio.get_running_loop().time()
    live = [replica for replica in replicas if replica.live]
    silent = [replica for replica in live if replica.silent(now)]
    for replica in silent[: len(live) - 1] if len(silent) == len(live) else silent:
        replica.eject(f"replica {replica.name} fell silent")
