"""Who owns the model: everything that waits when it is free becomes one `predict` call.

Compiled trees answer in microseconds, so they are asked on the event loop itself; any other model has a thread of its own.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque

import numpy as np

from interlock.core.errors import InterlockError, Unavailable
from interlock.core.prompt import Prompt
from interlock.model.columns import Array, join, unpack
from interlock.model.predictor import Predictor
from interlock.model.wire import TOO_LATE, BatchAnswer, BatchRequest

MAX_ROWS = 4096
Waiting = tuple[BatchRequest, int, Prompt[BatchAnswer]]
"""A batch, the time (perf_counter_ns) from which on nobody waits for it, and where its answer goes."""
log = logging.getLogger("interlock.serving")


class ModelEnded(Unavailable):
    """Whoever asks the model has failed, so nothing can be answered any more: the process must end."""

    code = "model_ended"


class Batcher:
    """Takes batches from the event loop, answers on it.

    When `predict` raises, the requests of that call run one by one and only the culprit fails. `ended` is the future that
    fails with `ModelEnded` if anything else goes wrong.
    """

    def __init__(self, predictor: Predictor, ended: asyncio.Future[None]) -> None:
        self.predictor = predictor
        self.ended = ended
        self.rows = 0
        self.calls = 0
        self.late = 0
        """Batches that were left undone, since nobody waited for them any more."""
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Waiting] = deque()
        self._wake = threading.Semaphore(0)
        self._closed = False
        self._scheduled = False
        self._thread: threading.Thread | None = None
        if not predictor.quick:
            self._thread = threading.Thread(target=self._run, name="model", daemon=True)
            self._thread.start()

    def submit(self, batch: BatchRequest) -> Prompt[BatchAnswer]:
        """Queue a batch; the future gets its answer."""
        future: Prompt[BatchAnswer] = Prompt(self._loop)
        self._waiting.append((batch, time.perf_counter_ns() + batch.left_us * 1000, future))
        if self._thread is not None:
            self._wake.release()
        elif not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)
        return future

    def close(self) -> None:
        """Answer what waits, then let the thread end."""
        self._closed = True
        if self._thread is not None:
            self._wake.release()
            self._thread.join(5.0)

    def _run(self) -> None:
        try:
            while True:
                self._wake.acquire()
                if self._waiting:
                    self._loop.call_soon_threadsafe(_deliver, *self._next())
                elif self._closed:
                    return  # otherwise an earlier call took this one along
        except BaseException as error:  # noqa: BLE001 - a thread that ends unheard leaves a server that never answers
            self._loop.call_soon_threadsafe(self._fail, error)

    def _fail(self, error: BaseException) -> None:
        log.critical("nothing can be answered any more", exc_info=error)
        if not self.ended.done():
            self.ended.set_exception(ModelEnded(f"asking the model ended with {type(error).__name__}"))

    def _turn(self) -> None:
        try:
            done = self._next()
        except BaseException as error:  # noqa: BLE001 - as in the thread
            self._fail(error)
            return
        _deliver(*done)
        self._scheduled = bool(self._waiting)
        if self._scheduled:
            self._loop.call_soon(self._turn)

    def _next(self) -> tuple[list[Waiting], list[BatchAnswer]]:
        """What waits, as much as goes into one call, and the answers."""
        taken, rows = [self._waiting.popleft()], 0
        while self._waiting and (rows := rows + sum(taken[-1][0].counts)) < MAX_ROWS:
            taken.append(self._waiting.popleft())
        now = time.perf_counter_ns()
        late = [one for one in taken if one[1] < now]
        alive = [one for one in taken if one[1] >= now]
        self.late += sum(bool(batch.counts) for batch, _, _ in late)
        answers = [BatchAnswer(b"", dict.fromkeys(range(len(one[0].counts)), TOO_LATE), 0) for one in late]
        return late + alive, answers + (self._answer([batch for batch, _, _ in alive]) if alive else [])

    def _answer(self, batches: list[BatchRequest]) -> list[BatchAnswer]:
        began = time.perf_counter_ns()
        try:
            arrays = unpack(self.predictor.signature, join([batch.columns for batch in batches]))
            numbers = self.predictor.predict(arrays)
        except BaseException:  # noqa: BLE001 - whatever a model raises, SystemExit too, belongs to one of these requests
            return [self._one_by_one(batch) for batch in batches]
        took = (time.perf_counter_ns() - began) // 1000
        self.calls += 1
        self.rows += len(numbers)
        answers, at = [], 0
        for batch in batches:
            rows = sum(batch.counts)
            answers.append(BatchAnswer(numbers[at : at + rows].tobytes(), {}, took))
            at += rows
        return answers

    def _one_by_one(self, batch: BatchRequest) -> BatchAnswer:
        began = time.perf_counter_ns()
        failures: dict[int, str] = {}
        try:
            arrays = unpack(self.predictor.signature, batch.columns)
        except Exception as error:  # noqa: BLE001 - a peer that sends other columns than the signature's
            failures = dict.fromkeys(range(len(batch.counts)), f"unreadable columns: {error}")
            return BatchAnswer(b"", failures, 0)
        numbers = np.full((sum(batch.counts), self.predictor.signature.width), np.nan)
        at = 0
        for i, rows in enumerate(batch.counts):
            part: list[Array] = [array[at : at + rows] for array in arrays]
            try:
                numbers[at : at + rows] = self.predictor.predict(part)
            except InterlockError as error:
                failures[i] = error.message
            except BaseException as error:  # noqa: BLE001 - the model's own error is this request's answer
                failures[i] = f"the model raised {type(error).__name__}: {error}"
            at += rows
        self.calls += len(batch.counts)
        self.rows += at
        return BatchAnswer(numbers.tobytes(), failures, (time.perf_counter_ns() - began) // 1000)


def _deliver(taken: list[Waiting], answers: list[BatchAnswer]) -> None:
    for (_, _, future), answer in zip(taken, answers, strict=True):
        if not future.done():
            future.settle(answer)
