"""Shadows: versions that are asked every question too. Their answers are logged, and nobody waits for them.

Whatever a shadow does, the live path only ever hands a question over: a bounded number waits, the rest is dropped and counted.
A gateway that is busy with live requests asks its shadows only every so many-th question, whatever it says.
"""

from __future__ import annotations

import asyncio
import logging
import time

import msgspec

from interlock.core.errors import DeadlineExceeded, InterlockError
from interlock.gateway.arms import Endpoint, ServedArm
from interlock.gateway.metrics import Metrics
from interlock.gateway.questions import Question
from interlock.gateway.trail import Reply, Trail, prediction
from interlock.model.answers import derive
from interlock.model.columns import pack
from interlock.predlog.journal import Journal

ROWS_UNDER_WAY = 1000
"""Rows that may wait for one shadow; a single larger request goes through when nothing else waits."""
BUSY = 0.5
"""The share of this process's one thread up to which there is time for shadows."""
LOOK_SECONDS, LEAST = 0.1, 1 / 64
log = logging.getLogger("interlock.gateway")


class Shadows:
    """Asks the shadows of all endpoints of this gateway."""

    def __init__(self, journal: Journal, metrics: Metrics) -> None:
        self._journal = journal
        self._metrics = metrics
        self._under_way: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._share, self._turn = 1.0, 0.0
        self._looked = (time.perf_counter(), time.thread_time())

    def offer(self, endpoint: Endpoint, question: Question, trail: Trail, reply: Reply) -> None:
        """Ask every shadow of the endpoint that keeps up; returns at once."""
        spared = self.spared()
        for shadow in endpoint.shadows:
            key = shadow.arm.package_digest
            waiting = self._under_way.get(key, 0)
            if spared or shadow.closed or not shadow.live or (waiting and waiting + reply.rows > ROWS_UNDER_WAY):
                self._metrics.count_shadow(endpoint.route.endpoint, shadow.arm.name, "dropped")
                continue
            self._under_way[key] = waiting + reply.rows
            copy = msgspec.structs.replace(trail, chance=False, propensity=0.0, model_us=0, packed=[])
            said = Reply(
                reply.prediction_id, reply.endpoint, rows=reply.rows, arm=shadow, traceparent=reply.traceparent
            )
            task = asyncio.get_running_loop().create_task(self._ask(endpoint, shadow, question, copy, said))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

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
        began, key, rows = time.perf_counter_ns(), shadow.arm.package_digest, said.rows
        try:
            said.rows, trail.columns = question.columns(shadow.signature)
            trail.packed = pack(shadow.signature, trail.columns)
            numbers = await shadow.pick([]).ask(said.rows, trail.packed, trail.deadline)
            trail.model_us = numbers.model_us
            said.answer = derive(shadow.signature, numbers.values, endpoint.parameters.threshold)
            said.outcome = "answered"
        except InterlockError as error:
            said.outcome = "timeout" if isinstance(error, DeadlineExceeded) else "error"
            said.reason, said.rows = error.message, 0
        except Exception:
            log.exception("unexpected error at shadow %s", shadow.arm.name)
            said.reason, said.rows = "internal error", 0
        finally:
            self._under_way[key] -= rows
        latency = (time.perf_counter_ns() - began) // 1000
        self._journal.append(prediction(endpoint, said, trail, 0, latency, "shadow"), shadow.schema)
        self._metrics.count_shadow(endpoint.route.endpoint, shadow.arm.name, said.outcome)
