"""Waiting without a turn of the event loop.

asyncio wakes who waits in the loop's next turn, behind all that has come meanwhile. A turn of a busy server takes milliseconds,
and a request that waits twice pays for it twice. Here whoever settles a `Prompt` runs at once who waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
log = logging.getLogger("interlock")


class Prompt(asyncio.Future[T]):
    """A future for one waiter, which `go` or `then` has named; a task that waits for it is woken in asyncio's way."""

    __slots__ = ("_next",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._next: Callable[[], None] | None = None

    def then(self, call: Callable[[], None]) -> None:
        """Call this as soon as it is settled, which it is not yet."""
        self._next = call

    def settle(self, value: T) -> None:
        """The result; who waits goes on before this returns."""
        self.set_result(value)
        self._run()

    def fail(self, error: Exception) -> None:
        """The error; who waits goes on before this returns."""
        self.set_exception(error)
        self._run()

    def _run(self) -> None:
        call, self._next = self._next, None  # it holds who waits, who holds us: a cycle, were it kept
        if call is not None:
            call()


class _Run:
    __slots__ = ("_loop", "_send")

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, None, None]) -> None:
        self._loop = loop
        self._send = work.send

    def step(self, _: object = None) -> None:
        try:
            waits = self._send(None)
        except StopIteration:
            return
        except asyncio.CancelledError:
            return  # what it waited for was called off
        except Exception:
            log.exception("unexpected error")
            return
        if type(waits) is Prompt:
            waits._asyncio_future_blocking = False  # asyncio's word for "I have seen who waits"
            waits.then(self.step)
        elif waits is None:  # asyncio.sleep(0)
            self._loop.call_soon(self.step)
        else:
            waits._asyncio_future_blocking = False
            waits.add_done_callback(self.step)


def go(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, None, None]) -> None:
    """Run a coroutine until it first waits, before this returns; it is no task of asyncio and cannot be cancelled."""
    _Run(loop, work).step()
