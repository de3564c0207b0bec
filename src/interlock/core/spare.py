"""Work that can wait, done in time that nobody else wants."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

LEAST_SHARE = 1 / 8
"""Of a core. Whoever waits for such work, for a lock that it holds perhaps, waits eight times as long as it takes."""
ANY_SECONDS = 0.1
"""A call that is over within this time was not kept waiting, whatever part of it was the disk's."""
RETRY_SECONDS = 1.0, 60.0
"""Twice as long after each call that got too little, up to the second: every try may wait for seconds."""

T = TypeVar("T")


class SpareTime:
    """A thread that runs where a core would otherwise stand still (SCHED_IDLE); one call at a time.

    Any other thread takes its core at once, and the kernel counts that core as free, so nobody makes room for it: with `nice`
    alone it would get a core to itself, and everybody else what is left. Where there is too little spare time, calls are made
    in the caller's thread for a while; where the system allows no such thread, it runs like any other.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "spare", _step_back)
        self._pause, self._retry_at = RETRY_SECONDS[0], 0.0

    def call(self, work: Callable[[], T]) -> T:
        """What `work` returns, or raises."""
        if time.monotonic() < self._retry_at:
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


def _step_back() -> None:
    with contextlib.suppress(OSError):  # forbidden in some containers
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
