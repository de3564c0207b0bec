"""The HTTP server by itself, asked over real sockets: what clients send that is unusual, wrong, slow, or an attack."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.house import free_port, until

from interlock.core import http, http_server
from interlock.core.http import Request, Response
from interlock.core.http_server import HttpServer

GET = b"GET /a%20b?x=1 HTTP/1.1\r\nhost: x\r\n\r\n"
SHOWN = b'"GET /a b 0"'


class Echo:
    """A server that says what it understood; `/wait` waits until it is let go."""

    def __init__(self) -> None:
        self.server = HttpServer(self.handle, port=free_port())
        self.go = asyncio.Event()
        self.begun = asyncio.Event()
        self.done = 0

    async def handle(self, request: Request) -> Response:
        self.begun.set()
        if request.path == "/wait":
            await self.go.wait()
        if request.path == "/fail":
            raise KeyError("fail")
        self.done += 1
        if request.path == "/unit":
            return Response(200, request.headers.get("x-unit", "none").encode())
        if request.too_large:
            return Response(413, b'"too large"')
        return Response(200, f'"{request.method} {request.path} {len(request.body)}"'.encode())

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.server.port)


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    found = Echo()
    await found.server.start()
    yield found
    found.go.set()
    await found.server.stop()


async def answer(reader: asyncio.StreamReader, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the next answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:] if line)
    status = int(head[0].split()[1])
    size = 0 if method == "HEAD" or status == 100 else int(headers["content-length"])
    return status, headers, await reader.readexactly(size)


async def once(echo: Echo, sent: bytes) -> tuple[int, dict[str, str], bytes]:
    """The first answer to what is sent on a connection of its own, which the server must then close or leave open as it says."""
    reader, writer = await echo.open()
    writer.write(sent)
    found = await answer(reader)
    if found[1].get("connection") == "close":
        writer.write_eof()
        assert await reader.read() == b""
    writer.close()
    return found


async def test_requests_in_one_piece_or_byte_by_byte_are_answered_in_their_order(echo: Echo) -> None:
    post = b"POST /p HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    for pieces in ([GET + post + GET], [bytes([one]) for one in GET + post + GET]):
        reader, writer = await echo.open()
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        assert [(await answer(reader))[2] for _ in range(3)] == [SHOWN, b'"POST /p 5"', SHOWN]
        writer.close()


async def test_fields_behind_a_body_are_no_headers(echo: Echo) -> None:
    chunked = b"POST /unit HTTP/1.1\r\nhost: x\r\n%btransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-unit: B\r\n\r\n"
    reader, writer = await echo.open()
    writer.write(chunked % b"" + chunked % b"x-unit: A\r\n")
    assert [(await answer(reader))[2] for _ in range(2)] == [b"none", b"A"]
    writer.close()


@pytest.mark.parametrize("sent", ["Zoé".encode(), "Zoé".encode("latin-1")])
@pytest.mark.parametrize("more", [b"", b"connection: upgrade\r\nupgrade: h2c\r\n"])
async def test_text_in_headers_is_utf8_or_else_latin1(echo: Echo, sent: bytes, more: bytes) -> None:
    status, _, text = await once(echo, b"GET /unit HTTP/1.1\r\nhost: x\r\nx-unit: %b\r\n%b\r\n" % (sent, more))
    assert (status, text.decode()) == (200, "Zoé")


async def test_what_comes_behind_a_request_under_way_waits_for_it(echo: Echo) -> None:
    reader, writer = await echo.open()
    writer.write(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n" + GET * 3)
    await echo.begun.wait()
    echo.go.set()
    assert [(await answer(reader))[2] for _ in range(4)] == [b'"GET /wait 0"', SHOWN, SHOWN, SHOWN]
    writer.close()


async def test_a_request_runs_to_its_end_although_its_client_went(echo: Echo) -> None:
    _, writer = await echo.open()
    writer.write(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
    await echo.begun.wait()
    writer.transport.abort()
    echo.go.set()
    await echo.server.stop()
    assert echo.done == 1


async def test_a_client_that_sends_no_more_still_gets_its_answer(echo: Echo) -> None:
    reader, writer = await echo.open()
    writer.write(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
    writer.write_eof()
    await echo.begun.wait()
    echo.go.set()
    assert (await answer(reader))[2] == b'"GET /wait 0"'
    assert await reader.read() == b""
    writer.close()


LENGTH = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: "
ODD = {
    "HTTP/1.0": (b"GET / HTTP/1.0\r\n\r\n", 200, True),
    "close": (b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" + GET, 200, True),
    "absolute target": (b"GET http://h/p?q HTTP/1.1\r\nhost: h\r\n\r\n", 200, False),
    "wishes HTTP/2": (LENGTH + b"3\r\nconnection: Upgrade\r\nupgrade: h2c\r\n\r\nabc", 200, False),
    "wishes a tunnel": (b"CONNECT h:1 HTTP/1.1\r\nhost: h\r\n\r\n", 200, True),
    "no HTTP": (b"nonsense\r\n\r\n", 400, True),
    "HTTP/0.9": (b"GET /x\r\n\r\n", 505, True),
    "HTTP/0.9 with a body": (b"GET /x\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 505, True),
    "two lengths": (LENGTH + b"3\r\ncontent-length: 4\r\n\r\nabcd", 400, True),
    "length and chunks": (LENGTH + b"3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 400, True),
    "no number": (LENGTH + b"+3\r\n\r\nabc", 400, True),
    "a space before the colon": (b"GET / HTTP/1.1\r\nhost : x\r\n\r\n", 400, True),
    "a bare line feed": (b"GET / HTTP/1.1\nhost: x\n\n", 400, True),
    "a line of a header before": (b"GET / HTTP/1.1\r\nhost: x\r\n more\r\n\r\n", 400, True),
    "many headers": (b"GET / HTTP/1.1\r\n" + b"".join(b"h%d: x\r\n" % i for i in range(200)) + b"\r\n", 431, True),
    "one header often": (b"GET / HTTP/1.1\r\n" + b"h: x\r\n" * 20_000 + b"\r\n", 431, True),
    "a long header": (b"GET / HTTP/1.1\r\nh: " + b"x" * 300_000, 431, True),
    "too large": (LENGTH + b"%d\r\n\r\nabc" % (http.BODY_LIMIT + 1), 413, True),
    "fails": (b"GET /fail HTTP/1.1\r\nhost: x\r\n\r\n", 500, True),
}


@pytest.mark.parametrize("kind", ODD)
async def test_what_is_unusual_or_wrong_has_its_status(kind: str, echo: Echo) -> None:
    sent, status, closes = ODD[kind]
    found, headers, body = await once(echo, sent)
    assert found == status
    assert (headers.get("connection") == "close") == closes
    assert status == 200 or body.startswith((b'{"error":', b'"too large"'))
    if kind == "wishes HTTP/2":
        assert body == b'"POST / 3"'


async def test_a_crowd_is_let_in_at_once_and_nobody_who_waits_is_turned_away(echo: Echo) -> None:
    """One client in a turn of the loop: the last of many is answered late, and those that wait are lost when the server stops."""
    loop = asyncio.get_running_loop()
    crowd = [socket.create_connection(("127.0.0.1", echo.server.port)) for _ in range(100)]  # in the kernel's queue
    for client in crowd:
        client.send(GET)
    stopping = loop.create_task(echo.server.stop())
    loop.call_soon(time.sleep, 2 * http_server.QUIET_SECONDS)  # a busy machine: time goes by, and nothing is read
    for client in crowd:
        client.setblocking(False)
        assert (await asyncio.wait_for(loop.sock_recv(client, 4096), 5)).startswith(b"HTTP/1.1 200")
        client.close()
    await stopping


async def test_an_old_client_is_told_that_it_may_go_on(echo: Echo) -> None:
    """ApacheBench's `-k`: HTTP/1.0 takes a connection for closed when it is not told otherwise."""
    reader, writer = await echo.open()
    for number in range(2):
        writer.write(b"GET /%d HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" % number)
        status, headers, body = await answer(reader)
        assert (status, headers["connection"], body) == (200, "keep-alive", f'"GET /{number} 0"'.encode())
    writer.write(b"GET /2 HTTP/1.0\r\n\r\n")
    assert (await answer(reader))[1]["connection"] == "close"
    assert await reader.read() == b""
    writer.close()


async def test_a_wish_for_another_protocol_is_heard_once(echo: Echo) -> None:
    reader, writer = await echo.open()
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n" * 3000)
    assert [(await answer(reader))[0] for _ in range(2)] == [200, 400]
    assert await reader.read() == b""
    writer.close()


async def test_a_client_that_asks_first_is_told_to_go_on(echo: Echo) -> None:
    reader, writer = await echo.open()
    writer.write(LENGTH + b"3\r\nexpect: 100-continue\r\n\r\n")
    assert (await answer(reader))[0] == 100
    writer.write(b"abc")
    assert (await answer(reader))[2] == b'"POST / 3"'
    writer.write(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n" + GET)
    assert (await answer(reader, "HEAD"))[1]["content-length"] == "10"
    assert (await answer(reader))[2] == SHOWN
    writer.close()


async def test_the_answer_to_a_body_without_end_arrives(echo: Echo) -> None:
    """The client goes on sending: were the connection just closed, it would see a reset and no answer."""
    async with httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{echo.server.port}/"
        found = await client.post(url, content=b"x" * (http.BODY_LIMIT + 1_000_000))
        assert found.status_code == 413

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(http.BODY_LIMIT // 500_000 + 2):
                yield b"x" * 500_000

        assert (await client.post(url, content=chunks())).status_code == 413


async def test_what_does_not_come_is_given_up(echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "REQUEST_SECONDS", 0.05)
    monkeypatch.setattr(http_server, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(http_server, "SWEEP_SECONDS", 0.02)
    await echo.server.stop()
    echo.server = HttpServer(echo.handle, port=free_port())
    await echo.server.start()
    for sent in (
        b"GET / HTTP/1.1\r\nhost",
        LENGTH + b"10\r\n\r\n1",
        LENGTH[:-16] + b"transfer-encoding: chunked\r\n\r\n1",
    ):
        assert (await once(echo, sent))[0] == 408
    assert (await once(echo, LENGTH + b"2\r\n\r\nok"))[0] == 200
    reader, writer = await echo.open()
    writer.write(GET)
    assert (await answer(reader))[0] == 200
    assert await reader.read() == b""  # nobody used it any more
    writer.close()


async def test_a_client_that_does_not_read_is_cut_off(echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "REQUEST_SECONDS", 0.1)
    monkeypatch.setattr(http_server, "SWEEP_SECONDS", 0.02)
    begun = asyncio.Event()

    async def handle(request: Request) -> Response:
        begun.set()
        return Response(200, b"x" * 4_000_000)

    large = HttpServer(handle, port=free_port())
    await large.start()
    _, writer = await asyncio.open_connection("127.0.0.1", large.port, limit=1024)
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # a read transport as well
    writer.write(GET * 20)
    await begun.wait()
    await asyncio.to_thread(until, lambda: not large.connections)
    writer.close()
    await large.stop()


async def test_answers_wait_for_a_client_that_does_not_read_them(echo: Echo) -> None:
    """However many requests it has sent: no more is worked out than the buffers take."""
    large = 100_000 * b"x"

    async def handle(request: Request) -> Response:
        echo.done += 1
        return Response(200, large)

    echo.server.handle = handle
    reader, writer = await echo.open()
    writer.write(GET * 999 + b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n")
    done = 0
    while done != echo.done or not done:
        done = echo.done
        await asyncio.sleep(0.2)
    assert done < 500
    assert (await reader.read()).count(large) == 1000
    writer.close()


async def knock(echo: Echo) -> None:
    """Come and go until nobody listens; for some turns of the loop a server that stops still takes who comes."""
    while True:
        _, writer = await echo.open()
        writer.close()


async def test_draining_answers_what_is_under_way_and_closes(echo: Echo) -> None:
    waiting, idle = await echo.open(), await echo.open()
    waiting[1].write(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
    await echo.begun.wait()
    stopping = asyncio.create_task(echo.server.stop())
    with pytest.raises(ConnectionRefusedError):
        await knock(echo)
    idle[1].write(GET)
    assert (await answer(idle[0]))[1]["connection"] == "close"
    echo.go.set()
    _, headers, body = await answer(waiting[0])
    assert (headers["connection"], body) == ("close", b'"GET /wait 0"')
    await stopping
    for _, writer in (waiting, idle):
        writer.close()


async def test_a_unix_socket_answers_too(tmp_path: Path) -> None:
    async def handle(request: Request) -> Response:
        return Response(200, request.path.encode())

    server = HttpServer(handle, path=tmp_path / "s")
    await server.start()
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(tmp_path / "s"))) as client:
        assert (await client.get("http://x/here")).text == "/here"
    await server.stop()


async def test_no_answer_is_split_by_a_header(echo: Echo) -> None:
    async def handle(request: Request) -> Response:
        return Response(200, b"", [("x-given", "a\r\nset-cookie: b")])

    echo.server.handle = handle
    assert (await once(echo, GET))[0] == 500


@settings(max_examples=150)
@given(
    cut=st.lists(st.integers(0, 400), max_size=6),
    noise=st.binary(max_size=60),
    at=st.integers(0, 300),
)
def test_nothing_that_comes_breaks_the_server(cut: list[int], noise: bytes, at: int) -> None:
    """Requests with bytes put in anywhere, cut anywhere: the next client is served, and nothing is left over."""

    async def run() -> None:
        echo = Echo()
        await echo.server.start()
        sent = LENGTH + b"5\r\n\r\nhello" + GET + LENGTH + b"3\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\nabc"
        sent = sent[:at] + noise + sent[at:]
        _, writer = await echo.open()
        edges = sorted({0, *(one for one in cut if one < len(sent)), len(sent)})
        for low, high in pairwise(edges):
            writer.write(sent[low:high])
            await asyncio.sleep(0)
        writer.close()
        assert (await once(echo, GET))[2] == SHOWN
        await echo.server.stop()
        assert not echo.server.running

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http_server, "QUIET_SECONDS", 0.001)
        asyncio.run(run())
