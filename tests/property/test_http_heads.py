"""A head that is known says what the parser said of it: with and without that memory, a server answers the same."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from interlock.core.http import Request, Response
from interlock.core.http_heads import HEADS, Heads
from interlock.core.http_server import Connection, HttpServer

HEAD_LINES = (
    b"host: x", b"Host: x\r\nconnection: keep-alive", b"content-length: 3", b"content-length: 0", b"Content-Length:5",
    b"content-length: 3\r\ncontent-length: 3", b"transfer-encoding: chunked", b"connection: close", b"expect: 100-continue",
    b"connection: upgrade\r\nupgrade: h2c", b"upgrade: h2c", b"x-api-key: k", b"x: " + 5000 * b"y",
)  # fmt: skip
BODIES = (
    b"",
    b"abc",
    b"xyz",
    b"hello",
    b"3\r\nabc\r\n0\r\n\r\n",
    b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\r\n\r\nGET /",
)
ENDS = (b"\r\n", b"\n")


@st.composite
def pieces(draw: st.DrawFn) -> bytes:
    """What comes in one piece: a request with some head and some body, now and then with something before or behind."""
    end = draw(st.sampled_from(ENDS)) if draw(st.integers(0, 9)) == 0 else b"\r\n"
    method, version = draw(st.sampled_from([b"GET", b"POST"])), draw(st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.0"]))
    lines = draw(st.lists(st.sampled_from(HEAD_LINES), max_size=2))
    head = end.join([method + b" /a%20b?c HTTP/" + version, *lines, b"", b""])
    before = draw(st.sampled_from([b"", b"", b"", b"\r\n", b"\r\n\r\n"]))
    return before + head + draw(st.sampled_from(BODIES))


class _Wire:
    """What a connection writes, and whether it has ended."""

    def __init__(self) -> None:
        self.said: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.said.append(data)

    def close(self) -> None:
        self.said.append(b"closed")

    def write_eof(self) -> None:
        self.said.append(b"no more")

    def can_write_eof(self) -> bool:
        return True


async def _handle(request: Request) -> Response:
    told = sorted(request.headers.items())
    return Response(200, f"{request.method} {request.path} {told} {request.body!r}".encode())


def _answers(server: HttpServer, loop: asyncio.AbstractEventLoop, sent: list[bytes]) -> list[bytes]:
    connection, wire = Connection(server, loop), _Wire()
    connection.connection_made(wire)  # type: ignore[arg-type]  # as much of a transport as it uses
    for piece in sent:
        connection.data_received(piece)
    return wire.said


@settings(max_examples=400)
@given(sent=st.lists(st.lists(pieces(), min_size=1, max_size=4), min_size=1, max_size=3))
@example(
    sent=[[b"POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc", b"POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nxyz"]]
)
@example(sent=[[b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"]])
@example(sent=[[b"GET / HTTP/1.1\n\nGET / HTTP/1.1\r\n\r\n"]])
def test_a_known_head_says_what_the_parser_said(sent: list[list[bytes]]) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        learning, forgetful = HttpServer(_handle), HttpServer(_handle)
        forgetful.date = learning.date
        for connection in sent + sent:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Heads, "learn", lambda *_: None)
                wanted = _answers(forgetful, loop, connection)
            assert _answers(learning, loop, connection) == wanted

    asyncio.run(run())


def test_the_memory_has_an_end() -> None:
    heads = Heads()
    for number in range(3 * HEADS):
        data = b"GET /%d HTTP/1.1\r\n\r\n" % number
        heads.learn(data, Request("GET", f"/{number}", {}, b""))
        found = heads.find(data)
        assert found is not None
        assert found.path == f"/{number}"
    assert sum(heads.find(b"GET /%d HTTP/1.1\r\n\r\n" % number) is not None for number in range(3 * HEADS)) <= HEADS
