"""A client whose requests come when they come: Poisson arrivals, latency from the intended time of sending.

A server that is slow cannot slow its load down, and what a request waits for a free connection is latency too.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

CONNECTIONS = 64
TICK, ANSWER_SECONDS = 0.001, 60.0
LATE_MS, LATE_SHARE, BUSY = 20.0, 0.1, 0.8
GROWTH_SHARE, GROWTH_REQUESTS = 0.1, 5
Name = Literal["expected", "twice", "search"]
Verdict = Literal["held", "broken", "client"]


class Step(msgspec.Struct, frozen=True):
    """`n` requests at `rate` a second for so long; nearest-rank percentiles in ms.

    errors: answers other than 200, of which `said` is the first. unanswered: not even sent within the deadline.
    verdict: broken = one of these, p99 over the deadline, or a queue that grew by a tenth of what came. client = likewise,
    but the client was late (lag_p99_ms) by 20 ms and a tenth of p99, or had no processor time left (client_cpu, of one
    core): it, not the server, was the limit.
    """

    name: Name
    rate: float
    seconds: float
    n: int
    errors: int
    unanswered: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    lag_p99_ms: float
    client_cpu: float
    verdict: Verdict
    said: str


class Client:
    """Asks some requests over and over in random order. Every `connection` is a task of its caller's."""

    def __init__(self, requests: Sequence[bytes], deadline: float, seed: int) -> None:
        self._requests, self._deadline, self._random = requests, deadline, random.Random(seed)  # noqa: S311 no secret
        self._due: asyncio.Queue[float] = asyncio.Queue()
        self._latencies: list[float] = []
        self.said: list[str] = []

    async def connection(self, path: Path) -> None:
        """Ask what is due, one request at a time; EOFError or OSError when the server goes."""
        reader, writer = await asyncio.open_unix_connection(str(path))
        with contextlib.closing(writer):
            while True:
                due = await self._due.get()
                writer.write(self._random.choice(self._requests))
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
                body = await reader.readexactly(int(length or 0))
                self._latencies.append(time.perf_counter() - due)
                self._due.task_done()
                if (status := head[9:12]) != b"200":
                    self.said.append(f"{status.decode()} {body[:300].decode(errors='replace')}")

    async def alone(self, seconds: float) -> float:
        """One request after the other; the median latency in seconds."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            self._due.put_nowait(time.perf_counter())
            await asyncio.wait_for(self._due.join(), ANSWER_SECONDS)
        return _percentile(sorted(self._latencies), 0.5)

    async def run(self, name: Name, rate: float, seconds: float) -> Step:
        """Ask at a rate, then wait until all is answered or nobody would wait any more."""
        self._latencies, self.said = [], []
        lags: list[float] = []
        queue: list[list[int]] = [[], [], [], []]  # its length in each quarter of the time
        began, cpu = time.perf_counter(), time.process_time()
        due, end = began + self._random.expovariate(rate), began + seconds
        while (now := time.perf_counter()) < end:
            while due <= now:
                lags.append(time.perf_counter() - due)
                self._due.put_nowait(due)
                due += self._random.expovariate(rate)
            queue[int(4 * (now - began) / seconds)].append(len(lags) - len(self._latencies))
            await asyncio.sleep(max(0.0, min(due - time.perf_counter(), TICK)))
        cpu = round((time.process_time() - cpu) / (time.perf_counter() - began), 3)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._due.join(), self._deadline)
        late = [time.perf_counter() - self._due.get_nowait() for _ in range(self._due.qsize())]
        for _ in late:
            self._due.task_done()
        await asyncio.wait_for(self._due.join(), ANSWER_SECONDS)
        latencies = sorted([*self._latencies, *late])
        p50, p90, p99, p999 = (round(_percentile(latencies, one) * 1000, 3) for one in (0.5, 0.9, 0.99, 0.999))
        lag = round(_percentile(sorted(lags), 0.99) * 1000, 3)
        shortest = [min(one, default=0) for one in queue]  # a hiccup's queue goes away again, one that grows does not
        grown = shortest[3] - shortest[1] > GROWTH_SHARE * rate * seconds / 2 + GROWTH_REQUESTS
        broken = bool(self.said or late) or p99 > 1000 * self._deadline or grown
        limit = lag > max(LATE_MS, LATE_SHARE * p99) or cpu > BUSY
        verdict: Verdict = "held" if not broken else "client" if limit else "broken"
        errors, said = len(self.said), self.said[0] if self.said else ""
        return Step(name, rate, seconds, len(lags), errors, len(late), p50, p90, p99, p999, lag, cpu, verdict, said)


def _percentile(ascending: Sequence[float], share: float) -> float:
    return ascending[max(math.ceil(share * len(ascending)), 1) - 1] if ascending else 0.0
