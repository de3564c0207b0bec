"""The gRPC edge that gateway and model server share: grpc.aio on the event loop that also answers HTTP.

A method is `async (message bytes, metadata) -> Answer`; nothing else of the house knows the server, as with `core.http`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import grpc
import msgspec

from interlock.core.errors import InterlockError, Misconfigured
from interlock.core.http import BODY_LIMIT, code_of
from interlock.core.http_server import REQUEST_SECONDS

DETAIL_LIMIT = 500
"""Characters of an error's message: it travels in a header, and clients refuse headers over 8 KiB."""
CONNECTION_SECONDS = 4.0
"""Age at which a client is asked to connect anew: so long a drain lasts at most before everybody has gone elsewhere."""
CALL_SECONDS = 610.0
"""For which calls go on behind that age, then they are cut off: longer than any TIMEOUT_SECOND."""
PING_SECONDS = 10.0
"""After which a silent client is asked for a sign of life, and in which one must come."""
CLIENT_PING_SECONDS = 5.0
"""A client that asks us more often than this is cut off at the third time."""
CALLS = 256
"""At once on one connection; the client's library holds others back."""
QUIET_SECONDS = 0.1
log = logging.getLogger("interlock.grpc")


class Answer(msgspec.Struct, frozen=True):
    """The answer's message, or an error; trailing metadata goes with both."""

    body: bytes = b""
    trailing: tuple[tuple[str, str], ...] = ()
    error: InterlockError | None = None


Method = Callable[[bytes, Mapping[str, str], float], Awaitable[Answer]]
"""The message, the call's metadata, and for how many seconds the client waits (infinite where it does not say)."""


class GrpcServer:
    """One service on one port, or on the Unix socket `path`; several processes may share a port (SO_REUSEPORT).

    A method runs to its end also when its client goes away: what has been numbered must be logged.
    """

    def __init__(
        self, service: str, methods: dict[str, Method], *, host: str = "", port: int = 0, path: Path | None = None
    ) -> None:
        self.address = f"unix:{path}" if path else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._port = port
        self._calls = 0
        self._running: set[asyncio.Future[Answer]] = set()
        options = {
            "grpc.so_reuseport": 1,
            "grpc.max_receive_message_length": BODY_LIMIT,
            "grpc.max_send_message_length": -1,
            "grpc.max_concurrent_streams": CALLS,
            "grpc.max_connection_age_ms": int(CONNECTION_SECONDS * 1000),
            "grpc.max_connection_age_grace_ms": int(CALL_SECONDS * 1000),
            "grpc.server_handshake_timeout_ms": int(REQUEST_SECONDS * 1000),
            "grpc.keepalive_time_ms": int(PING_SECONDS * 1000),
            "grpc.keepalive_timeout_ms": int(PING_SECONDS * 1000),
            "grpc.keepalive_permit_without_calls": 1,
            "grpc.http2.max_pings_without_data": 0,  # else a long call is asked about twice and then no more
            "grpc.http2.ping_timeout_ms": int(PING_SECONDS * 1000),  # of pings that are grpc's own
            "grpc.http2.min_ping_interval_without_data_ms": int(CLIENT_PING_SECONDS * 1000),
        }
        self._server = grpc.aio.server(options=list(options.items()))
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(partial(self._call, method)) for name, method in methods.items()
        }
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            Misconfigured: the address is taken.
        """
        try:
            self._server.add_insecure_port(self.address)
        except RuntimeError as error:
            raise Misconfigured(f"cannot listen on {self.address}: {error}", next="choose another port") from error
        await self._server.start()

    async def stop(self, grace: float = 5.0) -> None:
        """Drain: no new connections; the old ones are answered until they are quiet or old; then `grace` for what still runs.

        grpc's own stop cancels calls that have arrived and not begun: under load that is one for every other client.
        """
        if self._port:
            _leave(self._port)
        loop, seen = asyncio.get_running_loop(), -1
        end = loop.time() + CONNECTION_SECONDS * 1.2  # grpc spreads the ages by a tenth
        while seen != self._calls and loop.time() < end:
            seen = self._calls
            await asyncio.sleep(QUIET_SECONDS)
        await self._server.stop(grace)
        if self._running:
            await asyncio.wait(self._running, timeout=grace)

    async def _call(self, method: Method, body: bytes, context: grpc.aio.ServicerContext) -> bytes:
        self._calls += 1
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        left = context.time_remaining()
        task = asyncio.ensure_future(method(body, metadata, math.inf if left is None else left))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            answer = await asyncio.shield(task)
        except InterlockError as error:
            answer = Answer(error=error)
        except Exception:
            log.exception("unexpected error in a gRPC method")
            answer = Answer(error=InterlockError("internal error; the server's log says more"))
        if answer.error is not None:
            code = grpc.StatusCode[code_of(answer.error)]
            await context.abort(code, answer.error.message[:DETAIL_LIMIT], answer.trailing)
        context.set_trailing_metadata(answer.trailing)
        return answer.body


def _leave(port: int) -> None:
    """Stop listening on a port, so that new connections go to whoever shares it; those that are there stay.

    grpc cannot do this apart from stopping altogether, so the socket is looked up.
    """
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # closed meanwhile
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as one:
                listens = one.family != socket.AF_UNIX and one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if listens and one.getsockname()[1] == port:
                    one.shutdown(socket.SHUT_RD)
