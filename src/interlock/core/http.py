"""The HTTP edge that every server of the house shares: the tables from errors to status codes, and granian around a function.

A skin is `async handle(Request) -> Response`; nothing else of the house knows granian, so another HTTP server can carry it.
One process is one worker: granian's embedded server runs on our own event loop, and supervisors start as many processes as
they want on one port (SO_REUSEPORT).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from interlock.core import errors

STATUS: dict[type[errors.InterlockError], int] = {
    errors.InterlockError: 500,
    errors.Usage: 400,
    errors.Misconfigured: 500,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Refused: 403,
    errors.Tampered: 403,
    errors.NotApproved: 403,
    errors.Expired: 403,
    errors.FourEyes: 403,
    errors.RecipeFailed: 500,
    errors.InvalidData: 500,
    errors.InvalidRequest: 400,
    errors.TooLarge: 413,
    errors.UnsupportedMedia: 415,
    errors.UnknownVersion: 404,
    errors.Unauthenticated: 401,
    errors.RuleRefused: 422,
    errors.Overloaded: 429,
    errors.Unavailable: 503,
    errors.DeadlineExceeded: 504,
    errors.PredictionFailed: 500,
    errors.NotRunning: 503,
    errors.Corrupt: 500,
}
GRPC: dict[int, str] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "FAILED_PRECONDITION",
    413: "RESOURCE_EXHAUSTED",
    415: "INVALID_ARGUMENT",
    422: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""What each status of the table above is in gRPC."""
BODY_LIMIT = 10 * 1024 * 1024
BODY_SECONDS = 10.0
SWEEP_SECONDS = 1.0
QUIET_SECONDS = 0.1
CLOSE = ("connection", "close")
JSON: list[tuple[str, str]] = [("content-type", "application/json")]
TEXT: list[tuple[str, str]] = [("content-type", "text/plain; charset=utf-8")]


class Request:
    """What a handler sees of a request. `headers.get(name, default)` takes lower-case names."""

    __slots__ = ("body", "headers", "method", "path", "too_large")

    def __init__(self, method: str, path: str, headers: Any, body: bytes, too_large: bool = False) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body
        self.too_large = too_large


class Response:
    """Status, headers and body."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, body: bytes, headers: list[tuple[str, str]] = JSON) -> None:
        self.status = status
        self.body = body
        self.headers = headers


Handler = Callable[[Request], Awaitable[Response]]


def json_response(value: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(status, msgspec.json.encode(value))


def status_of(error: errors.InterlockError) -> int:
    """The error's status; a room's own subclass counts as its nearest base in the table."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def code_of(error: errors.InterlockError) -> str:
    """The error's gRPC code, by name."""
    return GRPC[status_of(error)]


def error_response(error: errors.InterlockError) -> Response:
    """`{"error": message}` under the error's status."""
    return json_response({"error": error.message}, status_of(error))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def leave(port: int) -> None:
    """Stop listening on a port, so that new connections go to whoever shares it; those that are there stay.

    Neither granian nor grpc can do this apart from stopping altogether, so the socket is looked up.
    """
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # closed meanwhile
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as one:
                listens = one.family != socket.AF_UNIX and one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if listens and one.getsockname()[1] == port:
                    one.shutdown(socket.SHUT_RD)


class HttpServer:
    """granian's embedded RSGI server around a handler, with a drain that loses no request.

    `start` returns when the socket is bound. `stop` takes no new connections, closes each old one behind its next answer,
    and ends when they are quiet. A body that does not come within `BODY_SECONDS` is answered with 408.
    """

    def __init__(self, handle: Handler, *, host: str = "127.0.0.1", port: int = 0, path: Path | None = None) -> None:
        self.handle = handle
        self.host = host
        self.port = port
        self.path = path
        self.running = 0
        self.draining = False
        self._answered = 0
        self._reading: dict[asyncio.Task[Any], float] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._server: Any = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            Misconfigured: the address is taken.
        """
        from granian.server.embed import Server

        where: dict[str, Any] = {"uds": self.path} if self.path else {"address": self.host, "port": self.port}
        self._server = Server(self._rsgi, **where, backlog=1024, log_enabled=False, websockets=False)
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._server.serve())
        await self._bound()
        self._sweeper = self._loop.create_task(self._sweep())

    async def stop(self, grace: float = 5.0) -> None:
        """Drain for at most `grace` seconds, then stop."""
        self.draining = True
        if self.path is None:
            leave(self.port)
        loop, seen = asyncio.get_running_loop(), -1
        end = loop.time() + grace
        while (self.running or seen != self._answered) and loop.time() < end:
            seen = self._answered
            await asyncio.sleep(QUIET_SECONDS)
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._task is not None:
            self._server.stop()
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(self._task, 2.0)

    async def _bound(self) -> None:
        family = socket.AF_UNIX if self.path else socket.AF_INET6 if ":" in self.host else socket.AF_INET
        target: Any = str(self.path) if self.path else (self.host, self.port)
        while True:
            if self._task is not None and self._task.done():
                cause = self._task.exception()
                raise errors.Misconfigured(f"cannot listen on {self.path or f'{self.host}:{self.port}'}: {cause}")
            with contextlib.suppress(OSError), socket.socket(family) as probe:
                probe.setblocking(False)
                await asyncio.get_running_loop().sock_connect(probe, target)
                return
            await asyncio.sleep(0.005)

    async def _rsgi(self, scope: Any, protocol: Any) -> None:
        self.running += 1
        try:
            headers = scope.headers
            length = headers.get("content-length")
            if scope.method in ("GET", "HEAD"):
                request = Request(scope.method, scope.path, headers, b"")
            else:
                task = asyncio.current_task()
                self._reading[task] = self._loop.time()  # type: ignore[index]  # granian runs every request as a task
                try:
                    request = await _read(scope, protocol, headers, length)
                except asyncio.CancelledError:
                    protocol.response_bytes(408, [*JSON, CLOSE], b'{"error":"the body did not come in time"}')
                    return
                finally:
                    del self._reading[task]  # type: ignore[arg-type]
            response = await self.handle(request)
            if self.draining or request.too_large:  # an unread body must not be taken for the next request
                response.headers = [*response.headers, CLOSE]
            protocol.response_bytes(response.status, response.headers, response.body)
        finally:
            self.running -= 1
            self._answered += 1

    async def _sweep(self) -> None:
        """Give up on clients that announce a body and do not send it."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            late = self._loop.time() - BODY_SECONDS
            for task, since in list(self._reading.items()):
                if since < late:
                    task.cancel()


async def _read(scope: Any, protocol: Any, headers: Any, length: str | None) -> Request:
    if length is None or not length.isdigit():
        return await _chunked(scope, protocol)
    over = int(length) > BODY_LIMIT
    return Request(scope.method, scope.path, headers, b"" if over else await protocol(), over)


async def _chunked(scope: Any, protocol: Any) -> Request:
    body = bytearray()
    async for chunk in protocol:
        body += chunk
        if len(body) > BODY_LIMIT:
            return Request(scope.method, scope.path, scope.headers, b"", True)
    return Request(scope.method, scope.path, scope.headers, bytes(body))
