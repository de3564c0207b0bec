"""Clients that announce a body and do not send it."""

from __future__ import annotations

import asyncio

import pytest
from tests.house import free_port

from interlock.core import http
from interlock.core.http import HttpServer, Request, Response


async def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_SECONDS", 0.05)
    monkeypatch.setattr(http, "SWEEP_SECONDS", 0.02)

    async def handle(request: Request) -> Response:
        return Response(200, request.body)

    server = HttpServer(handle, port=free_port())
    await server.start()

    async def status(head: bytes, content: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\n" + head + b"\r\n\r\n" + content)
        line = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return line.split()[1]

    assert await status(b"content-length: 10", b"1") == b"408"
    assert await status(b"transfer-encoding: chunked", b"1") == b"408"
    assert await status(b"content-length: 2", b"ok") == b"200"
    await server.stop()
