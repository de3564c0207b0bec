"""A replica as the gateway sees it: one connection, waiting requests as one columnar message, no timer.

At most two batches are in flight; what arrives meanwhile waits and becomes the next, larger batch. So the batch grows with the
load and nobody waits for a clock. A replica is live once it has answered a probe. One that is silent for far longer than is usual
is ejected: who waits for it goes to another one, until it answers the next probe. One that fails everything or answers what
nobody asked is cut off and probed later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import msgspec
import numpy as np

from interlock.core.errors import DeadlineExceeded, PredictionFailed, Unavailable
from interlock.core.prompt import Prompt
from interlock.gateway.metrics import ROWS, Histogram
from interlock.model.columns import Packed, join
from interlock.model.signature import Signature
from interlock.model.wire import LIMIT, TOO_LATE, BatchAnswer, BatchRequest, decode_answer, encode, frame, frames

IN_FLIGHT = 2
MAX_ROWS = 4096
MAX_BYTES = LIMIT // 8
"""A batch of several requests is no larger: what one client sends must not be the fate of its neighbours."""
RECONNECT_SECONDS = 0.05
SWEEP_SECONDS = 0.02
"""So much later than its deadline a request is told at the most."""
SILENT_SECONDS = 0.3
SILENT_FACTOR = 20
"""Silent: nothing came for so many times the usual time of such a batch, and at least `SILENT_SECONDS`."""
FAILURES = 10
"""So many requests failed in a row, and none was answered: it may be the replica and not the requests."""
AWAY_SECONDS, AWAY_LIMIT = 1.0, 10.0
"""A replica that was cut off is left alone for so long, twice as long each time until it answers a request."""
PROBE, PROBE_SECONDS = 0, 5.0
"""Number of a batch without requests, which a server answers when it gets to it, and how long that may take."""
LEARN = 0.1


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
    """A batch on its way, since when, its rows and the bytes of its message."""

    at: float
    rows: int
    size: int
    requests: list[Waiting]


class Replica(asyncio.Protocol):
    """Connects, and reconnects for as long as it is wanted."""

    def __init__(self, name: str, path: Path, signature: Signature) -> None:
        self.name = name
        self.path = path
        self.signature = signature
        self.load = 0
        """Requests waiting or in flight."""
        self.live = False
        """Whether a verified server answers on its socket: it opens it only when ready."""
        self.ejections = 0
        self.batches = Histogram(ROWS)
        self._usual: tuple[float, float] | None = None
        self._failures = 0
        self._away = AWAY_SECONDS
        self._pause = 0.0
        self._most_rows = min(MAX_ROWS, signature.rows_at_once)
        self._waiting: list[Waiting] = []
        self._sent: dict[int, Sent] = {}
        self._late: set[int] = set()
        """Batches for whose answers nobody waits any more."""
        self._number = 0
        self._scheduled = False
        self._sweeping = False
        self._wanted = True
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._connect())

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
        if not self.live:
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
            if batch:
                message = self._message(batch)
                if len(message) <= MAX_BYTES or len(batch) == 1:
                    self._send(self._transport, batch, message)
                    continue
                for part in _parts(batch):
                    self._send(self._transport, part, self._message(part))

    def _message(self, batch: list[Waiting]) -> bytes:
        """A batch as the next message."""
        left = int((max(one.deadline for one in batch) - self._loop.time()) * 1e6)
        joined = join([one.columns for one in batch])
        return frame(self._number + 1, BatchRequest([one.rows for one in batch], joined, left))

    def _send(self, transport: asyncio.Transport, batch: list[Waiting], message: bytes) -> None:
        self._number += 1
        rows = sum([one.rows for one in batch])
        self.batches.add(rows)
        self._sent[self._number] = Sent(self._loop.time(), rows, len(message), batch)
        transport.write(message)

    def _take(self) -> list[Waiting]:
        """The next batch; whoever gave up meanwhile is left out."""
        rows, count = 0, 0
        for waiting in self._waiting:
            if count and rows + waiting.rows > self._most_rows:
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
                    one.future.fail(_timeout())
        waiting = [one for one in self._waiting if not one.future.done()]  # a silent replica takes none of them out
        self.load -= len(self._waiting) - len(waiting)
        self._waiting = waiting
        self._sweeping = bool(self.load)
        if self._sweeping:
            self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def usual(self, size: int) -> float | None:
        """Seconds that a batch of so many bytes takes, by those that were answered; none was = nothing."""
        return self._usual and self._usual[0] * max(1.0, size / self._usual[1])

    @property
    def oldest(self) -> Sent | None:
        """The batch that has been on its way for the longest time."""
        return next(iter(self._sent.values()), None)

    @property
    def failing(self) -> bool:
        """Whether it fails whatever it is asked."""
        return self._failures >= FAILURES

    def eject(self, why: str) -> None:
        """Ask it nothing until it answers a probe; who waits may go to another replica."""
        self.ejections += 1
        self._late.update(self._sent)
        self._lose(f"replica {self.name} {why}")
        if self._transport is not None:
            self._probe(self._transport)

    def cut(self, why: str) -> None:
        """Eject it and come back later, each time twice as late."""
        self.ejections += 1
        self._pause, self._away = self._away, min(2 * self._away, AWAY_LIMIT)
        self._failures = min(self._failures, FAILURES - 1)  # when it is back, the next request tells
        self._lose(f"replica {self.name} {why}")
        if self._transport is not None:
            self._transport.abort()

    def _lose(self, message: str) -> None:
        waiting = [one for sent in self._sent.values() for one in sent.requests] + self._waiting
        self.live, self.load, self._waiting = False, 0, []
        self._sent.clear()
        for one in waiting:
            if not one.future.done():
                one.future.fail(LostReplica(message))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody listens; whether they answer, a probe tells."""
        self._buffer.clear()
        self._late.clear()
        self._transport = cast(asyncio.Transport, transport)
        self._probe(self._transport)

    def _probe(self, transport: asyncio.Transport) -> None:
        transport.write(frame(PROBE, BatchRequest([], [], -1)))
        self._loop.call_later(PROBE_SECONDS, self._unheard, transport)

    def _unheard(self, transport: asyncio.Transport) -> None:
        if not self.live and self._transport is transport:
            transport.abort()  # it may have lost the probe: connect again, and ask again

    def connection_lost(self, exc: Exception | None) -> None:
        """Everybody who waits is told, and the connection made again."""
        self._transport = None
        self._lose(f"replica {self.name} went away before it answered")
        if self._wanted:
            self._task = self._loop.create_task(self._connect())

    def data_received(self, data: bytes) -> None:
        """Answers, whole or in pieces."""
        self._buffer += data
        try:
            for number, payload in frames(self._buffer):
                answer = decode_answer(payload)
                if number == PROBE:
                    self.live = True
                    continue
                if number in self._late:
                    self._late.remove(number)
                    continue
                self._check(self._sent[number], answer)
                self._deliver(self._sent.pop(number), answer)
        except (ValueError, KeyError, msgspec.DecodeError) as error:
            self.cut(f"does not speak our protocol: {error}")
            return
        self._flush()

    def _check(self, sent: Sent, answer: BatchAnswer) -> None:
        """Whether it is an answer to that question.

        Raises:
            ValueError: it is not.
        """
        asked = self.signature.width * sent.rows
        numbers, rest = divmod(len(answer.numbers), 8)
        void = not numbers and not answer.failures.keys() >= set(range(len(sent.requests)))
        if rest or void or numbers not in (0, asked):
            raise ValueError(f"{numbers} numbers for a batch of {asked}")

    def _deliver(self, sent: Sent, answer: BatchAnswer) -> None:
        self.load -= len(sent.requests)
        numbers: list[float] = np.frombuffer(answer.numbers).tolist()
        width, at, answered = self.signature.width, 0, False
        for i, one in enumerate(sent.requests):
            end = at + one.rows * width
            if one.future.done():
                pass  # its deadline is over and the client was told
            elif i in answer.failures:
                self._fail(one, answer.failures[i])
            else:
                answered = True
                one.future.settle(Numbers(numbers[at:end], answer.model_us))
            at = end
        if answered:
            self._failures, self._away = 0, AWAY_SECONDS
            self._learn(self._loop.time() - sent.at, sent.size)

    def _fail(self, one: Waiting, why: str) -> None:
        if why == TOO_LATE:  # the server saw the deadline before our own look at it
            one.future.fail(_timeout())
        else:
            self._failures += 1
            one.future.fail(PredictionFailed(why))

    def _learn(self, seconds: float, size: int) -> None:
        if self._usual is None:
            self._usual = (seconds, float(size))
        else:
            usual, of = self._usual
            self._usual = (usual + LEARN * (seconds - usual), of + LEARN * (size - of))

    async def _connect(self) -> None:
        await asyncio.sleep(self._pause)
        self._pause = 0.0
        while True:
            try:
                await self._loop.create_unix_connection(lambda: self, str(self.path))
                return
            except (FileNotFoundError, ConnectionError, OSError):
                await asyncio.sleep(RECONNECT_SECONDS)


def _timeout() -> DeadlineExceeded:
    return DeadlineExceeded("no answer within TIMEOUT_SECOND")


def _parts(batch: list[Waiting]) -> Iterator[list[Waiting]]:
    """A batch that is too large for one message, in its order and in as few as it takes."""
    part, size = list[Waiting](), 0
    for one in batch:
        more = len(encode(one.columns))
        if part and size + more > MAX_BYTES:
            yield part
            part, size = [], 0
        part.append(one)
        size += more
    yield part


def eject_ailing(replicas: Sequence[Replica]) -> None:
    """Eject those that are silent or fail everything, as long as another one is left to ask.

    What is usual, the fastest of them tells: they hold the same model. The last one goes too when it keeps a batch for which
    nobody waits any more: with two of them on their way it would be asked nothing else.
    """
    now = asyncio.get_running_loop().time()
    live = [replica for replica in replicas if replica.live]
    for replica in live:
        waited, unwanted = 0.0, False
        if (oldest := replica.oldest) is not None:
            waited, unwanted = now - oldest.at, all(one.future.done() for one in oldest.requests)
        known = [usual for one in live if (usual := one.usual(oldest.size if oldest else 0)) is not None]
        limit = max(SILENT_SECONDS, SILENT_FACTOR * min(known, default=0.0))
        other = sum(one.live for one in live) > 1
        if (other and waited > limit) or (unwanted and waited > max(PROBE_SECONDS, limit)):
            replica.eject("fell silent")
        elif other and replica.failing:
            replica.cut(f"failed {FAILURES} requests in a row")
