"""Work that can wait, done in time that nobody else wants."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

PROBE_SECONDS = 0.02
"""Within which a core stands still for a moment, unless others want all there is: then it takes a second and more."""
LEAST_SHARE = 1 / 8
"""Of a core that a call should get."""
ANY_SECONDS = 0.1
"""A call that is over within this time was not kept waiting, whatever part of it was the disk's."""
RETRY_SECONDS = 1.0, 60.0
"""Twice as long after each call that got too little, up to the second: every try may wait for seconds."""

T = TypeVar("T")


class SpareTime:
    """A thread that runs where a core would otherwise stand still (SCHED_IDLE); one call at a time.

    Any other thread takes its core at once, and the kernel counts that core as free, so nobody makes room for it: with `nice`
    alone it would get a core to itself, and everybody else what is left. Before each call it is asked to do nothing; where it
    does not come to that, or a call got too little time, the caller works itself for a while, so that nobody waits for work
    that cannot go on, or for a lock that it holds. Where the system allows no such thread, it runs like any other.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "spare", _step_back)
        self._probe: Future[None] | None = None
        self._pause, self._retry_at = RETRY_SECONDS[0], 0.0

    def call(self, work: Callable[[], T]) -> T:
        """What `work` returns, or raises."""
        if time.monotonic() < self._retry_at or not self._runs():
            return work()
        return self._thread.submit(self._measured, work).result()

    def _measured(self, work: Callable[[], T]) -> T:
        began, used = time.monotonic(), time.thread_time()
        try:
            return work()
        finally:
            now = time.monotonic()
            if now - began <= max(ANY_SECONDS, (time.thread_time() - used) / LEAST_SHARE):
                self._pause = RETRY_SECONDS[0]
            else:
                self._retry_at = now + self._pause
                self._pause = min(2 * self._pause, RETRY_SECONDS[1])

    def _runs(self) -> bool:
        if self._probe is not None and not self._probe.done():
            return False
        self._probe = self._thread.submit(_nothing)
        try:
            self._probe.result(PROBE_SECONDS)
        except TimeoutError:
            return False
        return True


def _nothing() -> None:
    pass


def _step_back() -> None:
    with contextlib.suppress(OSError):  # forbidden in some containers
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
