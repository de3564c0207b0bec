"""Shadows: versions that are asked every question too. Their answers are logged, and nobody waits for them.

Whatever a shadow does, the live path only ever hands a question over: a bounded number waits, the rest is dropped and counted.
A gateway that is busy with live requests asks its shadows only every so many-th question, whatever it says.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from functools import partial

import msgspec

from interlock.core.errors import DeadlineExceeded, InterlockError
from interlock.gateway.arms import Endpoint, ServedArm
from interlock.gateway.metrics import Metrics
from interlock.gateway.questions import Question
from interlock.gateway.trail import INTERNAL, Reply, Trail, keep
from interlock.model.answers import derive
from interlock.model.columns import Packed, pack
from interlock.predlog.journal import Journal

ROWS_UNDER_WAY, BYTES_UNDER_WAY = 1000, 4 << 20
"""What may wait for one shadow, with its answers; a single larger request goes through when nothing else waits."""
BUSY = 0.5
"""The share of this process's one thread up to which there is time for shadows."""
LOOK_SECONDS, LEAST = 0.1, 1 / 64
log = logging.getLogger("interlock.gateway")


class Load(msgspec.Struct):
    """Rows, and the bytes of a question and its answer."""

    rows: int = 0
    size: int = 0


class Shadows:
    """Asks the shadows of all endpoints of this gateway."""

    def __init__(self, journal: Journal, metrics: Metrics) -> None:
        self._journal = journal
        self._metrics = metrics
        self._under_way: defaultdict[str, Load] = defaultdict(Load)
        """By package: endpoints with the same shadow share its servers."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._share, self._turn = 1.0, 0.0
        self._looked = (time.perf_counter(), time.thread_time())

    def offer(self, endpoint: Endpoint, question: Question, trail: Trail, reply: Reply) -> None:
        """Ask every shadow of the endpoint that keeps up; returns at once. The reply knows what the live arm is asked."""
        spared, rows, size = self.spared(), reply.rows, _size(reply.packed)
        for shadow in endpoint.shadows:
            waiting = self._under_way[shadow.arm.package_digest]
            more = Load(rows, size + 8 * rows * shadow.signature.width)
            full = waiting.rows + rows > ROWS_UNDER_WAY or waiting.size + more.size > BYTES_UNDER_WAY
            if spared or shadow.closed or not shadow.live or (waiting.rows and full):
                self._metrics.count_shadow(endpoint.route.endpoint, shadow.arm.name, "dropped")
                continue
            waiting.rows, waiting.size = waiting.rows + rows, waiting.size + more.size
            copy = msgspec.structs.replace(trail, chance=False, propensity=0.0, model_us=0)
            said = Reply(reply.prediction_id, reply.endpoint, traceparent=reply.traceparent)
            task = asyncio.get_running_loop().create_task(self._ask(endpoint, shadow, question, copy, said))
            self._tasks.add(task)
            task.add_done_callback(partial(self._done, waiting, more))

    def _done(self, waiting: Load, less: Load, task: asyncio.Task[None]) -> None:
        waiting.rows, waiting.size = waiting.rows - less.rows, waiting.size - less.size
        self._tasks.discard(task)

    def spared(self) -> bool:
        """Whether this question is one of those that a busy gateway does not hand over."""
        now, (at, worked) = time.perf_counter(), self._looked
        if now - at > LOOK_SECONDS:
            spent = time.thread_time()
            self._share = (
                max(LEAST, self._share / 2) if spent - worked > BUSY * (now - at) else min(1.0, 1.25 * self._share)
            )
            self._looked = now, spent
        self._turn += self._share
        if self._turn < 1.0:
            return True
        self._turn -= 1.0
        return False

    async def _ask(self, endpoint: Endpoint, shadow: ServedArm, question: Question, trail: Trail, said: Reply) -> None:
        began, name = time.perf_counter_ns(), shadow.arm.name
        try:
            await asyncio.sleep(0)  # the live question goes first
            said.read(shadow, question, narrower=endpoint.route.allow_narrower)
            del question  # which may be larger than its rows, and a shadow may take long
            said.packed = pack(shadow.signature, said.columns)
            numbers = await shadow.pick([]).ask(said.rows, said.packed, trail.deadline)
            trail.model_us = numbers.model_us
            said.answer = derive(shadow.signature, numbers.values, endpoint.parameters.threshold)
            said.outcome = "answered"
        except InterlockError as error:
            said.outcome = "timeout" if isinstance(error, DeadlineExceeded) else "error"
            said.reason = error.message
        except Exception:
            log.exception("unexpected error at shadow %s", name)
            said.reason = INTERNAL
        latency = (time.perf_counter_ns() - began) // 1000
        said = keep(self._journal, endpoint, said, trail, 0, latency, "shadow")
        self._metrics.count_shadow(endpoint.route.endpoint, name, said.outcome)


def _size(packed: Packed) -> int:
    """Bytes of packed columns; a text counts by its characters."""
    return sum(len(one) if isinstance(one, bytes) else sum(map(len, filter(None, one))) for one in packed)
