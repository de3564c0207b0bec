"""Work that can wait gives way to everybody, but not for ever."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from interlock.core.lifeline import Child
from interlock.core.spare import SpareTime

T = TypeVar("T")


def here() -> tuple[int, int]:
    """The thread that asks, and its scheduling class."""
    return threading.get_ident(), os.sched_getscheduler(0)


def busy(seconds: float = 0.002) -> int:
    """Takes so much CPU time; the thread that did it."""
    began = time.thread_time()
    while time.thread_time() - began < seconds:
        pass
    return threading.get_ident()


@contextmanager
def no_core_is_free() -> Iterator[None]:
    command = [sys.executable, "-c", "while True: pass"]
    hogs = [subprocess.Popen(command) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for one in hogs:
            one.kill()
            one.wait()


def by_another(spare: SpareTime, work: Callable[[], T], thread: Callable[[T], int]) -> T:
    """What a call gives that is not made in this thread: at the first attempt, unless the machine is busy."""
    for _ in range(1000):
        if thread(done := spare.call(work)) != threading.get_ident():
            return done
        time.sleep(0.01)
    pytest.fail("the caller always had to do it")


def test_it_runs_where_a_core_would_stand_still_and_gives_back_what_comes() -> None:
    spare = SpareTime()
    thread, policy = by_another(spare, here, lambda done: done[0])
    assert policy == os.SCHED_IDLE
    assert here()[1] == os.SCHED_OTHER
    with pytest.raises(ZeroDivisionError):
        spare.call(lambda: 1 // 0)
    assert by_another(spare, here, lambda done: done[0])[0] == thread


def test_where_no_core_is_free_the_caller_does_it() -> None:
    spare = SpareTime()
    with no_core_is_free():
        for _ in range(1000):
            if spare.call(busy) == threading.get_ident():
                break
        else:
            pytest.fail("it waited a thousand times for time that did not come")
    by_another(spare, busy, lambda thread: thread)


def test_where_the_kernel_forbids_that_class_work_is_done_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", forbidden)
    assert SpareTime().call(lambda: 7) == 7


def test_children_share_our_session_or_their_priorities_would_not_count() -> None:
    """Kernels that share time among sessions first (autogroup) weigh priorities only within one."""
    child = Child(
        [sys.executable, "-c", "import time; time.sleep(60)"], environment=os.environ, output=subprocess.DEVNULL
    )
    try:
        assert (os.getsid(child.pid), os.getpgid(child.pid)) == (os.getsid(0), child.pid)
    finally:
        child.stop(0.0)
