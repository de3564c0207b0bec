"""The gRPC edge itself: calls run to their end when clients leave, and a drain loses none."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import grpc
import pytest
from tests.house import free_port

from interlock.core.errors import Misconfigured
from interlock.core.grpc import Answer, GrpcServer

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
