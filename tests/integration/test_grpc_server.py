"""The gRPC edge itself: calls run to their end when clients leave, a drain loses none, and nobody is waited for without end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

import grpc
import pytest
from tests.house import free_port

import interlock.core.grpc as edge
from interlock.core.errors import Misconfigured
from interlock.core.grpc import Answer, GrpcServer
from interlock.core.http import BODY_LIMIT

PATH = "/test.Service/Wait"


class Waiting:
    """A method that waits until it is let go."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.done = asyncio.Event()

    async def answer(self, body: bytes, metadata: Mapping[str, str], left: float) -> Answer:
        self.begun.set()
        await self.go.wait()
        self.done.set()
        return Answer(body.upper(), (("seen", metadata["x-mine"]),))


async def test_a_call_ends_when_its_client_has_gone() -> None:
    waiting, port = Waiting(), free_port()
    server = GrpcServer("test.Service", {"Wait": waiting.answer}, host="127.0.0.1", port=port)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(PATH)(b"a", metadata=(("x-mine", "1"),))
        await waiting.begun.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    stopping = asyncio.ensure_future(server.stop())
    await asyncio.sleep(0)
    assert not waiting.done.is_set()
    waiting.go.set()
    await stopping
    assert waiting.done.is_set()


async def test_a_drain_answers_what_runs_and_takes_nothing_new() -> None:
    waiting, port = Waiting(), free_port()
    server = GrpcServer("test.Service", {"Wait": waiting.answer}, host="127.0.0.1", port=port)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = channel.unary_unary(PATH)
        call = ask(b"a", metadata=(("x-mine", "1"),))
        await waiting.begun.wait()
        stopping = asyncio.ensure_future(server.stop())
        await asyncio.sleep(0)
        assert not stopping.done()
        waiting.go.set()
        assert await call == b"A"
        assert dict(await call.trailing_metadata())["seen"] == "1"
        await stopping
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await ask(b"b", metadata=(("x-mine", "2"),))
        assert late.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_several_share_a_port_and_a_stranger_is_refused() -> None:
    port = free_port()
    servers = [GrpcServer("test.Service", {}, host="127.0.0.1", port=port) for _ in range(2)]
    for server in servers:
        await server.start()
        await server.stop()
    stranger = await asyncio.start_server(lambda *_: None, "127.0.0.1", port)
    async with stranger:
        with pytest.raises(Misconfigured, match=str(port)):
            await GrpcServer("test.Service", {}, host="127.0.0.1", port=port).start()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2 (RFC 9113, 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def header(name: bytes, value: bytes) -> bytes:
    """A header that nobody remembers (RFC 7541, 6.2.2)."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


DATA, HEADERS, SETTINGS = 0, 1, 4
END_HEADERS = 4
MAX_CONCURRENT_STREAMS = 3
HEAD = {b":method": b"POST", b":scheme": b"http", b":path": PATH.encode(), b":authority": b"x", b"te": b"trailers"}
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, b"")
CALL = HELLO + frame(
    HEADERS, END_HEADERS, 1, b"".join(header(*one) for one in {**HEAD, b"content-type": b"application/grpc"}.items())
)
MESSAGE = CALL + frame(DATA, 0, 1, b"\0" + (1000).to_bytes(4, "big") + b"x" * 100)
SILENT = (b"", HELLO[:10], HELLO, CALL[:-20], CALL, MESSAGE[:-50], MESSAGE)
"""Nothing, half a hello, no call, half a head, no message, half a frame, half a message."""


async def silent(port: int, said: bytes) -> None:
    """Say something and then nothing more, not even a sign of life, until the other side hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    with contextlib.suppress(ConnectionResetError):
        await reader.read()
    writer.close()


async def echo(body: bytes, metadata: Mapping[str, str], left: float) -> Answer:
    return Answer(body)


async def test_who_falls_silent_is_cut_off_and_the_others_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("REQUEST_SECONDS", 1.0), ("CONNECTION_SECONDS", 0.5), ("PING_SECONDS", 2.0)):
        monkeypatch.setattr(edge, name, seconds)
    port = free_port()
    server = GrpcServer("test.Service", {"Wait": echo}, host="127.0.0.1", port=port)
    await server.start()
    async with asyncio.timeout(30), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = channel.unary_unary(PATH)
        clients = asyncio.gather(*(silent(port, said) for said in SILENT))
        while not clients.done():
            assert await ask(b"a", wait_for_ready=True) == b"a"
            await asyncio.sleep(0.05)
    await server.stop()


async def test_who_shows_signs_of_life_may_wait_longer_than_a_connection_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("CONNECTION_SECONDS", 0.5), ("PING_SECONDS", 1.0)):
        monkeypatch.setattr(edge, name, seconds)
    waiting, port = Waiting(), free_port()
    server = GrpcServer("test.Service", {"Wait": waiting.answer}, host="127.0.0.1", port=port)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(PATH)(b"a", metadata=(("x-mine", "1"),))
        done, _ = await asyncio.wait([asyncio.ensure_future(call.code())], timeout=3.0)
        assert not done
        waiting.go.set()
        assert await call == b"A"
    await server.stop()


async def test_a_call_that_takes_no_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its client does: this one answers every ping."""
    for name in ("CONNECTION_SECONDS", "CALL_SECONDS"):
        monkeypatch.setattr(edge, name, 0.5)
    waiting, port = Waiting(), free_port()
    server = GrpcServer("test.Service", {"Wait": waiting.answer}, host="127.0.0.1", port=port)
    await server.start()
    async with asyncio.timeout(20), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as cut:
            await channel.stream_unary(PATH)(metadata=(("x-mine", "1"),))
        assert cut.value.code() == grpc.StatusCode.UNAVAILABLE
    assert not waiting.begun.is_set(), "half a call is none"
    await server.stop()


async def test_a_connection_has_its_limits() -> None:
    port = free_port()
    server = GrpcServer("test.Service", {"Wait": echo}, host="127.0.0.1", port=port)
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HELLO)
    head = await reader.readexactly(9)
    assert head[3] == SETTINGS
    told = await reader.readexactly(int.from_bytes(head[:3], "big"))
    settings = {int.from_bytes(told[at : at + 2], "big"): told[at + 2 : at + 6] for at in range(0, len(told), 6)}
    assert int.from_bytes(settings[MAX_CONCURRENT_STREAMS], "big") == edge.CALLS
    writer.close()
    own = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=own) as channel:
        ask = channel.unary_unary(PATH)
        with pytest.raises(grpc.aio.AioRpcError) as large:
            await ask(b"x" * (BODY_LIMIT + 1))
        assert large.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await ask(b"x") == b"x"
    await server.stop()
