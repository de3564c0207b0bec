"""Keeps processes alive: restart with backoff, one log each, stopped in reverse order; none of them outlives us."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from interlock.core.lifeline import Child

BACKOFF_SECONDS = (0.05, 10.0)
STABLE_SECONDS = 30.0
LINGER_SECONDS = 3.0
LOG_BYTES = 16 << 20
State = Literal["starting", "ready", "waiting", "stopping"]


class ProcessSpec(msgspec.Struct, frozen=True):
    """A process that should live. `stage`: those of a lower stage start first and stop last."""

    name: str
    command: tuple[str, ...]
    stage: int
    grace: float = 10.0


class ProcessStatus(msgspec.Struct, frozen=True):
    """What `interlock status` shows of a process."""

    name: str
    state: State
    pid: int | None
    restarts: int
    last_exit: int | None
    log: str


class _Supervised:
    def __init__(self, spec: ProcessSpec, log: Path) -> None:
        self.spec = spec
        self.log = log
        self.child: Child | None = None
        self.restarts = 0
        self.last_exit: int | None = None
        self.ready = False
        self.next_start = 0.0
        self._pause = BACKOFF_SECONDS[0]
        self._started = 0.0
        self._log_start = 0

    def start(self) -> None:
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            os.replace(self.log, self.log.with_suffix(".log.1"))
        with self.log.open("ab") as output:
            self._log_start = output.tell()
            self.child = Child(self.spec.command, environment=os.environ, output=output)
        self.ready, self._started = False, time.monotonic()

    def look(self) -> bool:
        """Notice readiness and death; whether it has just died."""
        if self.child is None:
            return False
        code = self.child.poll()
        if code is None:
            if not self.ready:
                self.ready = b"ready:" in self.said()
            return False
        self.child.kill_group()
        self.child, self.last_exit, self.ready = None, code, False
        if time.monotonic() - self._started > STABLE_SECONDS:
            self._pause = BACKOFF_SECONDS[0]
        self.next_start = time.monotonic() + self._pause
        self._pause = min(self._pause * 2, BACKOFF_SECONDS[1])
        return True

    def said(self) -> bytes:
        """What it wrote since it was started."""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            return file.read(1 << 20)

    def status(self) -> ProcessStatus:
        state: State = "waiting" if self.child is None else "ready" if self.ready else "starting"
        pid = self.child.pid if self.child else None
        return ProcessStatus(self.spec.name, state, pid, self.restarts, self.last_exit, self.log.name)


class Supervisor:
    """Runs what `want` names. `tick` is called a few times a second by one loop; nothing here blocks but `stop`.

    `on_death(name, exit code, what it said)` is told of every process that ended by itself.
    """

    def __init__(self, logs: Path, on_death: Callable[[str, int, str], None]) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self.logs = logs
        self.on_death = on_death
        self._all: dict[str, _Supervised] = {}
        self._unwanted: dict[str, float] = {}
        self._leaving: list[tuple[_Supervised, float]] = []
        self._rolling: list[str] = []
        self._next: _Supervised | None = None

    def want(self, specs: Sequence[ProcessSpec]) -> None:
        """Start those that are new; those that are no longer wanted stop after they were not for `LINGER_SECONDS`.

        So gateways that still obey the last revision, and requests under way, find them alive.
        """
        now = time.monotonic()
        wanted = {spec.name for spec in specs}
        for name in list(self._all):
            if name in wanted:
                self._unwanted.pop(name, None)
            elif now - self._unwanted.setdefault(name, now) >= LINGER_SECONDS:
                one = self._all.pop(name)
                del self._unwanted[name]
                if one.child is not None:
                    one.child.signal(signal.SIGTERM)
                    self._leaving.append((one, now + one.spec.grace))
        for spec in sorted(specs, key=lambda spec: spec.stage):
            if spec.name not in self._all:
                self._all[spec.name] = one = _Supervised(spec, self.logs / f"{spec.name}.log")
                one.start()

    def roll(self, prefix: str) -> None:
        """Replace the processes of that name one after the other: the next one starts when the last is ready and told to go."""
        self._rolling = [name for name in self._all if name.startswith(prefix)]

    def _roll(self) -> None:
        if self._next is None and self._rolling:
            old = self._all.get(self._rolling[0])
            if old is None:  # no longer wanted
                self._rolling.pop(0)
                return
            self._next = _Supervised(old.spec, old.log)
            self._next.start()
        if self._next is None:
            return
        if self._next.look():  # it does not come up: the old one goes on
            self._next, self._rolling = None, []
        elif self._next.ready:
            name = self._rolling.pop(0)
            old, self._all[name], self._next = self._all[name], self._next, None
            if old.child is not None:
                old.child.signal(signal.SIGTERM)
                self._leaving.append((old, time.monotonic() + old.spec.grace))

    def tick(self) -> None:
        """Reap the dead, and start them again when their pause is over."""
        self._roll()
        for one in self._all.values():
            if one.look():
                self.on_death(one.spec.name, one.last_exit or 0, one.said().decode(errors="replace"))
            if one.child is None and time.monotonic() >= one.next_start:
                one.restarts += 1
                one.start()
        for one, end in list(self._leaving):
            if one.child is not None and (one.child.poll() is not None or time.monotonic() > end):
                one.child.stop(0.0)
                self._leaving.remove((one, end))

    def ready(self) -> bool:
        """Whether everything wanted has said that it is ready, and nothing is being replaced."""
        return not self._rolling and all(one.ready for one in self._all.values())

    def statuses(self) -> list[ProcessStatus]:
        """All processes, in the order of their stages."""
        return [one.status() for one in sorted(self._all.values(), key=lambda one: one.spec.stage)]

    def stop(self) -> None:
        """Stop everything, the highest stage first, each stage together."""
        for one in (*(one for one, _ in self._leaving), *([self._next] if self._next else [])):
            self._stop([one])
        for stage in sorted({one.spec.stage for one in self._all.values()}, reverse=True):
            self._stop([one for one in self._all.values() if one.spec.stage == stage])
        self._all.clear()

    def _stop(self, those: list[_Supervised]) -> None:
        for one in those:
            if one.child is not None:
                one.child.signal(signal.SIGTERM)
        end = time.monotonic() + max((one.spec.grace for one in those), default=0.0)
        for one in those:
            if one.child is not None:
                one.child.stop(max(0.0, end - time.monotonic()))
