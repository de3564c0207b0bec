"""The HTTP/1.1 server of the house: llhttp's parser on our own event loop, around one handler.

One process is one worker; supervisors start as many processes as they want on one port (SO_REUSEPORT). A connection's requests
are answered one after the other, and each answer is worked out to its end also when the client does not wait: what has been
numbered must be logged. Source: RFC 9110 and RFC 9112.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from typing import cast

import httptools

from interlock.core.errors import Misconfigured
from interlock.core.http import BODY_LIMIT, Handler, Request, Response, json_response
from interlock.core.http_heads import Heads, path_of, text_of
from interlock.core.prompt import go

BACKLOG = 1024
HEADER_LIMIT = 64 * 1024
HEADER_COUNT = 128
REQUEST_SECONDS = 10.0
"""In which a request must have come, head and body, and in which a client must take an answer."""
IDLE_SECONDS = 75.0
"""After which a connection that nobody uses is closed."""
LINGER_SECONDS = 1.0
"""For which what a client still sends is taken after the last answer, so that the answer reaches it."""
SWEEP_SECONDS = 1.0
ACCEPT_SECONDS = 0.5
"""After which clients are taken again when there was no file descriptor left for one."""
TURNS = 10
QUIET_SECONDS = 0.1
LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
UPGRADE = ("upgrade", "http2-settings")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
STAYS, STAYS_OLD, CLOSES = "", "connection: keep-alive\r\n", "connection: close\r\n"
"""What an answer says of its connection. HTTP/1.0 takes every answer for the last one (RFC 9112, 9.3)."""
log = logging.getLogger("interlock.http")


class HttpServer:
    """A handler behind a port or a Unix socket.

    `start` returns when the socket is bound. `stop` takes no new connections, closes each old one behind its next answer,
    and ends when they are quiet. A request that does not come within `REQUEST_SECONDS` is answered with 408.
    """

    def __init__(self, handle: Handler, *, host: str = "127.0.0.1", port: int = 0, path: Path | None = None) -> None:
        self.handle = handle
        self.host = host
        self.port = port
        self.path = path
        self.draining = False
        self.date = formatdate(usegmt=True)
        self.connections: set[Connection] = set()
        self.heads = Heads()
        self.running = 0
        """Connections whose requests are being answered."""
        self.answered = 0
        self._listeners: list[socket.socket] = []
        self._arriving: set[asyncio.Task[object]] = set()
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            Misconfigured: the address is taken.
        """
        loop = asyncio.get_running_loop()
        try:
            await self._bind(loop)
        except OSError as error:
            for listener in self._listeners:
                listener.close()
            where = self.path or f"{self.host}:{self.port}"
            raise Misconfigured(f"cannot listen on {where}: {error}", next="choose another port") from error
        for listener in self._listeners:
            loop.add_reader(listener, self._accept, listener, loop)
        self._sweeper = loop.create_task(self._sweep())

    async def _bind(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.path is not None:
            if self.path.is_socket():
                self.path.unlink()
            listener = socket.socket(socket.AF_UNIX)
            self._listeners.append(listener)
            listener.bind(str(self.path))
            listener.listen(BACKLOG)
        else:
            found = await loop.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, _, _, _, address in dict.fromkeys(found):
                listener = socket.create_server(address[:2], family=family, backlog=BACKLOG, reuse_port=True)
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # whoever is taken inherits it
                self._listeners.append(listener)
        for listener in self._listeners:
            listener.setblocking(False)

    def _accept(self, listener: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        """Take all who wait: libuv takes one in a turn of the loop, so at a busy server the last of many waits as many turns."""
        while True:
            try:
                client, _ = listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue  # it went before it was taken
            except OSError as error:
                log.error("no client can be taken: %s", error)
                loop.remove_reader(listener)
                loop.call_later(ACCEPT_SECONDS, self._again, listener, loop)
                return
            client.setblocking(False)
            task = loop.create_task(self._take(client, loop))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)

    def _again(self, listener: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        if not self.draining:
            loop.add_reader(listener, self._accept, listener, loop)

    async def _take(self, client: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        try:
            await loop.connect_accepted_socket(lambda: Connection(self, loop), client)
        except OSError:
            client.close()  # it went before it was heard

    async def stop(self, grace: float = 5.0) -> None:
        """Drain for at most `grace` seconds, then stop."""
        self.draining = True
        loop, seen = asyncio.get_running_loop(), -1
        for listener in self._listeners:  # who waits would be turned away by the close
            self._accept(listener, loop)
        await _turns()
        while self._listeners:
            listener = self._listeners.pop()
            self._accept(listener, loop)
            loop.remove_reader(listener)
            listener.close()
        end = loop.time() + grace
        while (self.running or seen != self.answered) and loop.time() < end:
            seen = self.answered
            await asyncio.sleep(QUIET_SECONDS)
            await _turns()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self.connections):
            connection.close()

    async def _sweep(self) -> None:
        """Look after clients that announce and do not send, do not read, or do nothing."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self.date = formatdate(usegmt=True)
            now = loop.time()
            for connection in list(self.connections):
                connection.sweep(now)


async def _turns() -> None:
    """As many turns of the loop as it takes to hear a client who has been taken: on a busy machine time alone is no measure."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


class Connection(asyncio.Protocol):
    """One client: parses what comes, and answers in its order."""

    def __init__(self, server: HttpServer, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._since = loop.time()
        """When what the connection does now began."""
        self._coming = False
        """Whether a request has begun to come and is not whole."""
        self._head_bytes = 0
        self._headers_whole = False
        self._stayed = False
        """Whether it wished for another protocol, and was told no."""
        self._begun = 0
        """Requests in the piece that is read."""
        self._plain: Request | None = None
        """A request that came whole and leaves the connection open: its head may come again."""
        self._last = False
        """Whether the answer to what is under way is the last one."""
        self._ended = False
        self._busy = False
        """Whether a request is being answered."""
        self._waiting: deque[tuple[Request, str]] = deque()
        self._paused = False
        self._blocked: asyncio.Future[None] | None = None
        self._clear()

    def _clear(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._count = 0
        self._body: list[bytes] = []
        self._size = 0
        self._given = False
        """Whether it was handed on before it was whole, for it is too large."""
        self._elsewhere = False
        """Whether it asks for another protocol."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self._transport = cast(asyncio.Transport, transport)
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It went."""
        self._transport = None
        self._ended = True
        self._server.connections.discard(self)
        self.resume_writing()

    def eof_received(self) -> bool:
        """It sends no more; an answer that it waits for still goes out."""
        self._last = True
        return self._busy

    def pause_writing(self) -> None:
        """The client does not read its answers."""
        self._blocked = self._loop.create_future()
        self._since = self._loop.time()

    def resume_writing(self) -> None:
        """It reads again."""
        if self._blocked is not None and not self._blocked.done():
            self._blocked.set_result(None)
        self._blocked = None

    def data_received(self, data: bytes) -> None:
        """A part of a request, one, or several."""
        if self._ended or self._last:
            return
        first = not self._coming
        if first:
            known = self._server.heads.find(data)
            if known is not None:
                self._hand_on(known, STAYS)
                return
            self._coming, self._since, self._head_bytes, self._begun = True, self._loop.time(), 0, 0
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._stayed:  # a client that has been answered in HTTP/1.1 does not wish again
                self._refuse(400, "this server speaks HTTP/1.1")
            elif not self._last:
                self._stay(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            self._refuse(400, f"not HTTP: {error}")
            return
        if self._coming and not self._headers_whole:
            self._head_bytes += len(data)
            if self._head_bytes > HEADER_LIMIT:
                self._refuse(431, f"the head of the request is over {HEADER_LIMIT >> 10} KiB")
        plain, self._plain = self._plain, None
        if first and self._begun == 1 and plain is not None:
            self._server.heads.learn(data, plain)

    def _stay(self, rest: bytes) -> None:
        """We know no other protocol, and may answer in this one: read the request again without that wish (RFC 9110, 7.8).

        The parser gives no body to a request that has it.
        """
        self._stayed = True
        close = "close" in self._headers.pop("connection", "").lower()
        wanted = [f"{name}: {value}\r\n" for name, value in self._headers.items() if name not in UPGRADE]
        head = "".join([*wanted, "connection: close\r\n" if close else "", "\r\n"])
        line = b"%b %b HTTP/1.1\r\n" % (self._parser.get_method(), self._url)
        self._parser = httptools.HttpRequestParser(self)
        self._clear()
        self.data_received(line + head.encode() + rest)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._begun += 1
        self._headers_whole = False
        if not self._coming:  # behind another one in the same piece
            self._coming, self._since, self._head_bytes = True, self._loop.time(), 0

    def on_url(self, url: bytes) -> None:
        """A part of its target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header. Those behind a body are left out: no field of ours may come there (RFC 9110, 6.5.1)."""
        self._count += 1
        if self._count > HEADER_COUNT or self._headers_whole:
            return
        key = name.decode("latin-1").lower()
        text = text_of(value)
        if key in self._headers:
            text = f"{self._headers[key]}, {text}"
        self._headers[key] = text

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._headers_whole = True
        headers, version = self._headers, self._parser.get_http_version()
        self._elsewhere = self._parser.should_upgrade() and self._parser.get_method() != b"CONNECT"
        if self._elsewhere:
            return
        if self._count > HEADER_COUNT:
            self._refuse(431, f"more than {HEADER_COUNT} headers")
        elif version not in ("1.1", "1.0"):
            self._refuse(505, "this server speaks HTTP/1.1")
        elif int(headers.get("content-length") or 0) > BODY_LIMIT:
            self._give(too_large=True)
        elif "expect" in headers and headers["expect"].lower() == "100-continue" and self._transport is not None:
            self._transport.write(CONTINUE)

    def on_body(self, part: bytes) -> None:
        """A part of its body."""
        if not self._given:
            self._size += len(part)
            self._body.append(part)
            if self._size > BODY_LIMIT:
                self._give(too_large=True)

    def on_message_complete(self) -> None:
        """It is whole."""
        if self._elsewhere:
            return
        self._coming = False
        if not (self._given or self._ended or self._last):
            self._give()
        self._clear()

    def _give(self, *, too_large: bool = False) -> None:
        """Hand a request on, or let it wait for the one before."""
        self._given = True
        parser = self._parser
        body = b"" if too_large else self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request = Request(parser.get_method().decode(), path_of(self._url), self._headers, body, too_large)
        self._last = too_large or parser.should_upgrade() or not parser.should_keep_alive()
        if too_large:
            self._body = []
        after = CLOSES if self._last else STAYS if parser.get_http_version() == "1.1" else STAYS_OLD
        self._plain = request if after == STAYS else None
        self._hand_on(request, after)

    def _hand_on(self, request: Request, after: str) -> None:
        if not self._busy:
            self._busy = True
            self._server.running += 1
            go(self._loop, self._serve(request, after))
        else:
            self._waiting.append((request, after))
            if self._transport is not None and not self._paused:
                self._paused = True
                self._transport.pause_reading()

    async def _serve(self, request: Request, after: str) -> None:
        try:
            await self._answer(request, after)
        finally:
            self._busy = False
            self._server.running -= 1
        if not self._coming:
            self._since = self._loop.time()
        if self._paused and self._transport is not None and not self._ended:
            self._paused = False
            self._transport.resume_reading()

    async def _answer(self, request: Request, after: str) -> None:
        """Answer a request, and those that wait behind it, as fast as the client takes the answers."""
        server = self._server
        while True:
            if self._blocked is not None:
                await self._blocked
                if self._ended:
                    return
            try:
                response = await server.handle(request)
                last = server.draining or (self._last and not self._waiting)
                self._write(request, response, CLOSES if last else after)
            except Exception:
                log.exception("unexpected error at %s %s", request.method, request.path)
                self._write(
                    request, json_response({"error": "internal error; the server's log says more"}, 500), CLOSES
                )
            server.answered += 1
            if not self._waiting or self._ended:
                return
            request, after = self._waiting.popleft()

    def _write(self, request: Request, response: Response, after: str) -> None:
        if self._transport is None or self._ended:
            return
        body = response.body
        head = [f"{name}: {value}\r\n" for name, value in response.headers]
        text = "".join(head)
        if text.count("\n") != len(head):
            raise ValueError("a header of the answer has more than one line")
        start = f"{LINES[response.status]}{text}content-length: {len(body)}\r\ndate: {self._server.date}\r\n{after}\r\n"
        self._transport.write(start.encode() if request.method == "HEAD" else start.encode() + body)
        if after == CLOSES:
            self._end()

    def _refuse(self, status: int, message: str) -> None:
        """Answer what is no request we take, and end; behind a request under way, end after it."""
        if self._busy:
            self._last = True
        else:
            self._write(Request("", "", {}, b""), json_response({"error": message}, status), CLOSES)

    def _end(self) -> None:
        """Close behind the last answer; where more may come, only after a while, or the answer would be lost with it."""
        self._ended = True
        if self._transport is None:
            return
        if self._coming and self._transport.can_write_eof():
            self._transport.write_eof()
            self._loop.call_later(LINGER_SECONDS, self.close)
        else:
            self._transport.close()

    def close(self) -> None:
        """End the connection when what was written has gone out."""
        self._ended = True
        if self._transport is not None:
            self._transport.close()

    def sweep(self, now: float) -> None:
        """See `HttpServer`."""
        if self._ended:
            return
        late = now - self._since
        if self._blocked is not None:
            if late > REQUEST_SECONDS and self._transport is not None:
                self._transport.abort()
        elif not self._busy:
            if self._coming and late > REQUEST_SECONDS:
                self._refuse(408, "the request did not come in time")
            elif late > IDLE_SECONDS:
                self.close()
