"""An open-loop client: Poisson arrivals, latency from the intended send time, so that a slow server cannot slow its load down."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections import deque
from urllib.parse import urlsplit

import uvloop

CONNECTIONS = 64


class _Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self, load: _Load) -> None:
        self.load, self.buffer, self.intended = load, b"", 0.0

    def connection_made(self, transport) -> None:
        self.transport = transport

    def ask(self, intended: float) -> None:
        self.intended = intended
        self.transport.write(self.load.request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head = self.buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        lines = self.buffer[:head].lower()
        length = int(lines.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(self.buffer) < head + 4 + length:
            return
        self.load.answered(self, lines[9:12] == b"200")
        self.buffer = b""

    def connection_lost(self, exc: Exception | None) -> None:
        self.load.lost += 1


class _Load:
    def __init__(self, request: bytes) -> None:
        self.request = request
        self.latencies: list[float] = []
        self.errors = self.lost = 0
        self.idle: deque[_Connection] = deque()
        self.waiting: deque[float] = deque()

    def arrive(self, intended: float) -> None:
        if self.idle:
            self.idle.popleft().ask(intended)
        else:
            self.waiting.append(intended)

    def answered(self, connection: _Connection, ok: bool) -> None:
        self.latencies.append(time.perf_counter() - connection.intended)
        self.errors += not ok
        if self.waiting:
            connection.ask(self.waiting.popleft())
        else:
            self.idle.append(connection)


def open_loop(url: str, body: str, rate: float, seconds: float, seed: int = 0) -> dict[str, float]:
    """Ask `rate` times a second on average; percentiles in ms, errors, and the rate of answers while it asked."""
    return uvloop.run(_run(url, body.encode(), rate, seconds, random.Random(seed)))


async def _run(url: str, body: bytes, rate: float, seconds: float, rng: random.Random) -> dict[str, float]:
    where = urlsplit(url)
    head = f"POST {where.path} HTTP/1.1\r\nhost: {where.netloc}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    load, loop = _Load(head.encode() + b"\r\n\r\n" + body), asyncio.get_running_loop()
    for _ in range(CONNECTIONS):
        _, connection = await loop.create_connection(lambda: _Connection(load), where.hostname, where.port)
        load.idle.append(connection)
    gc.disable()  # its pauses would be read as the server's
    began = due = time.perf_counter()
    while (now := time.perf_counter()) < began + seconds:
        while due <= now:
            load.arrive(due)
            due += rng.expovariate(rate)
        await asyncio.sleep(max(0.0, min(due - time.perf_counter(), 0.001)))
    reached = len(load.latencies) / (time.perf_counter() - began)
    while len(load.idle) < CONNECTIONS - load.lost and time.perf_counter() < began + seconds + 5:
        await asyncio.sleep(0.01)
    gc.enable()
    found = sorted(load.latencies)
    return {
        "rate": reached,
        "requests": float(len(found)),
        "p50": found[len(found) // 2] * 1e3,
        "p99": found[int(len(found) * 0.99)] * 1e3,
        "errors": load.errors + load.lost,
    }
