"""Children that never outlive their parent: a pipe whose end-of-file means the parent is gone.

PR_SET_PDEATHSIG fires when the creating *thread* ends and misses grandchildren; a pipe does neither.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

VARIABLE = "INTERLOCK_LIFELINE"
LOOK_SECONDS = 0.02


class Child:
    """A process in a group of its own that holds the read end of our lifeline.

    `output`: where stdout and stderr go; `stderr` may part them.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        output: IO[bytes] | int,
        stderr: IO[bytes] | int = subprocess.STDOUT,
        directory: Path | None = None,
    ) -> None:
        read, self._write = os.pipe2(os.O_CLOEXEC)
        try:
            self.process = subprocess.Popen(
                list(command),
                env={**environment, VARIABLE: str(read)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=stderr,
                cwd=directory,
                process_group=0,
                pass_fds=(read,),
            )
        except BaseException:
            os.close(self._write)
            raise
        finally:
            os.close(read)
        self.peak_mb: float | None = None
        """After `wait`: the most memory that it, or a child of its own, had resident; never less than ours at its start,
        since the kernel hands that number on."""

    @property
    def pid(self) -> int:
        """Process id, and the id of its group."""
        return self.process.pid

    def poll(self) -> int | None:
        """The exit code, or None while it lives."""
        return self.process.poll()

    def wait(self, seconds: float = math.inf) -> int | None:
        """The exit code, or None if it still lives after so many seconds."""
        end = time.monotonic() + seconds
        while self.process.returncode is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.process.returncode = os.waitstatus_to_exitcode(status)
                self.peak_mb = usage.ru_maxrss / 1024
            elif (left := end - time.monotonic()) > 0:
                time.sleep(min(left, LOOK_SECONDS))
            else:
                return None
        return self.process.returncode

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the child itself, if it still lives."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def tell(self, line: str) -> None:
        """Send a line to a child that listens to `tie_to_parent(...)`.

        Raises:
            BrokenPipeError: it is gone.
        """
        os.write(self._write, f"{line}\n".encode())

    def stop(self, grace: float) -> int:
        """SIGTERM, then after `grace` seconds SIGKILL to its whole group; the exit code."""
        self.signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(grace)
        self.kill_group()
        return self.process.wait()

    def kill_group(self) -> None:
        """SIGKILL to everything in its group; close the lifeline."""
        with contextlib.suppress(ProcessLookupError):  # everybody is gone already, which is what was wanted
            os.killpg(self.pid, signal.SIGKILL)
        if self._write >= 0:
            os.close(self._write)
            self._write = -1


def spare_the_collector() -> None:
    """In a server that is set up: what is there now stays, and requests make few cycles, so looking for some can wait.

    At the defaults a full collection comes every few thousand requests, and takes a quarter of the time between them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def tie_to_parent(*, grace: float = 0.0) -> queue.SimpleQueue[str] | None:
    """In a child: when the parent is gone, SIGTERM ourselves and, after `grace` seconds, SIGKILL our whole group.

    Returns where the lines arrive that the parent tells; None in a process that was started by hand.
    """
    number = os.environ.pop(VARIABLE, None)
    if number is None:
        return None
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_watch, args=(int(number), grace, lines), name="lifeline", daemon=True).start()
    return lines


def _watch(read: int, grace: float, lines: queue.SimpleQueue[str]) -> None:
    os.set_inheritable(read, False)
    told = b""
    while data := os.read(read, 4096):
        *whole, told = (told + data).split(b"\n")
        for line in whole:
            lines.put(line.decode())
    if grace:
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(grace)
    os.killpg(os.getpgrp(), signal.SIGKILL)
