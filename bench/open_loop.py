"""An open-loop client: Poisson arrivals, latency from the intended send time, so that a slow server cannot slow its load down.

It shares its cores with the server, so it costs as little as Python allows: plain sockets, and no event loop.
"""

from __future__ import annotations

import gc
import random
import select
import socket
import time
from collections import deque
from urllib.parse import urlsplit

CONNECTIONS = 64
PIECE = 1 << 20
LINGER_SECONDS = 5.0
"""For which answers are awaited after the last question."""


class _Load:
    """Keep-alive connections, one request at a time on each; who comes when all are taken waits."""

    def __init__(self, host: str, port: int, request: bytes) -> None:
        self.request = request
        self.latencies: list[float] = []
        self.errors = self.lost = 0
        self.waiting: deque[float] = deque()
        """Intended send times of requests that have no connection yet."""
        self._sockets: dict[int, socket.socket] = {}
        self._intended: dict[int, float] = {}
        self._pieces: dict[int, bytes] = {}
        self._ready = select.epoll()
        self._idle: list[int] = []
        for _ in range(CONNECTIONS):
            one = socket.create_connection((host, port))
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets[one.fileno()] = one
            self._ready.register(one, select.EPOLLIN)
            self._idle.append(one.fileno())

    @property
    def asking(self) -> int:
        """Requests without an answer."""
        return len(self._intended) + len(self.waiting)

    def ask(self) -> None:
        """Send what waits, as far as there are connections."""
        while self.waiting and self._idle:
            number = self._idle.pop()
            self._intended[number] = self.waiting.popleft()
            self._sockets[number].sendall(self.request)

    def hear(self, seconds: float) -> None:
        """Take answers for at most so long, and return as soon as there was one."""
        select.select([self._ready], [], [], seconds)  # epoll's own clock counts milliseconds
        for number, _ in self._ready.poll(0):
            data = self._pieces.pop(number, b"") + self._sockets[number].recv(PIECE)
            head = data.find(b"\r\n\r\n")
            if not data:
                self._lose(number)
            elif head < 0 or len(data) < head + 4 + _length(data[:head]):
                self._pieces[number] = data
            else:
                self.latencies.append(time.perf_counter() - self._intended.pop(number))
                self.errors += data[9:12] != b"200"
                self._idle.append(number)

    def _lose(self, number: int) -> None:
        self._ready.unregister(number)
        self._sockets.pop(number).close()
        self._idle = [one for one in self._idle if one != number]
        self.lost += self._intended.pop(number, None) is not None

    def close(self) -> None:
        """End all connections."""
        self._ready.close()
        for one in self._sockets.values():
            one.close()


def _length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])


def open_loop(url: str, body: str, rate: float, seconds: float, seed: int = 0) -> dict[str, float]:
    """Ask `rate` times a second on average; percentiles in ms, errors, and the rate of answers while it asked."""
    where, rng = urlsplit(url), random.Random(seed)
    head = f"POST {where.path} HTTP/1.1\r\nhost: {where.netloc}\r\ncontent-type: application/json\r\n"
    load = _Load(where.hostname, where.port, f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
    gc.disable()  # its pauses would be read as the server's
    began = due = now = time.perf_counter()
    while now < began + seconds:
        while due <= now:
            load.waiting.append(due)
            due += rng.expovariate(rate)
        load.ask()
        load.hear(max(0.0, due - time.perf_counter()))
        now = time.perf_counter()
    reached = len(load.latencies) / (now - began)
    while load.asking and time.perf_counter() < now + LINGER_SECONDS:
        load.ask()
        load.hear(0.01)
    gc.enable()
    load.close()
    found = sorted(load.latencies)
    return {
        "rate": reached,
        "requests": float(len(found)),
        "p50": found[len(found) // 2] * 1e3,
        "p99": found[int(len(found) * 0.99)] * 1e3,
        "errors": load.errors + load.lost + load.asking,
    }
