"""Real receivers on loopback: a webhook and a mail server that keep what they hear."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.message
import email.policy
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import msgspec


class Receiver:
    """What was heard; `answer` is the webhook's status or the mail server's reply to a recipient."""

    def __init__(self, answer: int) -> None:
        self.answer, self.port = answer, 0
        self.heard: list[Any] = []


@contextlib.contextmanager
def webhook() -> Iterator[Receiver]:
    """A server that takes POSTs of JSON."""
    receiver = Receiver(200)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.heard.append(msgspec.json.decode(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(receiver.answer)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def mail_server() -> Iterator[Receiver]:
    """As much of RFC 5321 as smtplib speaks without TLS and login; `heard`: parsed messages."""
    receiver, ready = Receiver(250), threading.Event()
    loop = asyncio.new_event_loop()

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def say(text: str) -> None:
            writer.write(f"{text}\r\n".encode())
            await writer.drain()

        await say("220 here")
        while line := (await reader.readline()).decode().strip():
            verb = line.split(" ")[0].upper()
            if verb == "DATA":
                await say("354 go on")
                data = (await reader.readuntil(b"\r\n.\r\n")).removesuffix(b".\r\n")
                receiver.heard.append(email.message_from_bytes(data, policy=email.policy.default))
            await say({"RCPT": f"{receiver.answer} so", "QUIT": "221 bye"}.get(verb, "250 ok"))
            if verb == "QUIT":
                break
        writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(session, "127.0.0.1", 0)
        receiver.port = server.sockets[0].getsockname()[1]
        ready.set()
        async with server:
            with contextlib.suppress(asyncio.CancelledError):
                await server.serve_forever()

    task = loop.create_task(serve())
    thread = threading.Thread(target=loop.run_until_complete, args=(task,))
    thread.start()
    try:
        assert ready.wait(10)
        yield receiver
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()
