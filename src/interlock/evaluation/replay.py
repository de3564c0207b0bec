"""Logged requests asked again: of real model servers, columns all the way, both sides at once."""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from interlock.core.errors import Unavailable
from interlock.evaluation.diff import Speed
from interlock.evaluation.evaluate import Candidate
from interlock.evaluation.logged import READABLE, RequestLog
from interlock.evaluation.metrics import Array, Floats
from interlock.evaluation.proof import ANSWER_SECONDS, OfflineServer, offline_server
from interlock.evaluation.sides import ASK, Decider, Read, Setup
from interlock.evaluation.tally import Decisions
from interlock.model.answers import label_codes
from interlock.model.columns import NAT, pack_arrays, packed_type
from interlock.model.signature import Input, Signature
from interlock.model.wire import BatchRequest, decode_answer, frame, frames

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 2048
FLIGHT = 2
"""Batches under way to a model server, and pages under way to all."""
LEFT_OUT = 100
"""From so many rows on an input that a gateway never logged was left out, and not missing by chance."""


class Answered(NamedTuple):
    """A page of whole requests and what both sides decided. `codes` [rows]: see `Decisions`; `numbers` [rows, width]: NaN where
    there is no answer; `reasons` [rows]: 0, or why the row cannot be replayed.
    """

    table: pa.Table
    kinds: Array
    codes: list[Array]
    numbers: list[Floats]
    reasons: Array


class Model:
    """A package behind its model server."""

    def __init__(self, candidate: Candidate, server: OfflineServer, stack: ExitStack) -> None:
        self.candidate = candidate
        self.signature: Signature = candidate.package.manifest.signature
        self.pool = stack.enter_context(ThreadPoolExecutor(1))
        self._rows = self._failed = self._model_us = 0
        self._seconds = 0.0
        server.wait()
        self._socket = stack.enter_context(socket.socket(socket.AF_UNIX))
        self._socket.settimeout(ANSWER_SECONDS)
        self._socket.connect(str(server.socket))
        self._buffer = bytearray()

    def ask(self, columns: list[Array], counts: Array) -> Floats:
        """Numbers [rows, width] of requests of so many rows each, NaN where the model failed.

        Raises:
            Unavailable: the model server went away, or is silent.
        """
        began, ends = time.perf_counter(), np.cumsum(counts)
        numbers = np.full((len(columns[0]), self.signature.width), np.nan)
        under_way: dict[int, tuple[int, int]] = {}
        try:
            for number, (first, last) in enumerate(_batches(ends)):
                start, end = int(ends[first] - counts[first]), int(ends[last - 1])
                parts = [one[start:end] for one in columns]
                packed = pack_arrays(self.signature, parts)
                self._socket.sendall(frame(number, BatchRequest(counts[first:last].tolist(), packed)))
                under_way[number] = (start, end)
                if len(under_way) == FLIGHT:
                    self._take(under_way, numbers)
            while under_way:
                self._take(under_way, numbers)
        except OSError as error:
            name = self.candidate.subject.name
            raise Unavailable(f"the model server of {name} did not answer: {error}", next="run it again") from error
        self._seconds += time.perf_counter() - began
        self._rows += len(numbers)
        self._failed += int(np.isnan(numbers[:, 0]).sum())
        return numbers

    def _take(self, under_way: dict[int, tuple[int, int]], numbers: Floats) -> None:
        """Wait for at least one answer."""
        while not (complete := list(frames(self._buffer))):
            data = self._socket.recv(1 << 20)
            if not data:
                raise ConnectionError("it ended")
            self._buffer += data
        for number, payload in complete:
            start, end = under_way.pop(number)
            answer = decode_answer(payload)
            self._model_us += answer.model_us
            if answer.numbers:
                numbers[start:end] = np.frombuffer(answer.numbers).reshape(-1, self.signature.width)

    def speed(self) -> Speed:
        """How it went."""
        rate, each = self._rows / max(self._seconds, 1e-9), self._model_us / max(self._rows, 1)
        return Speed(self.candidate.subject.package_digest, self._rows, self._seconds, rate, each, self._failed)


def _batches(ends: Array) -> Iterator[tuple[int, int]]:
    """Requests `first` to `last` of each batch: whole ones, up to BATCH_ROWS rows or a single larger one."""
    first = 0
    while first < len(ends):
        before = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, before + BATCH_ROWS, "right")), first + 1)
        yield first, last
        first = last


class Replay:
    """Two sides over a log. `reasons`: why rows cannot be replayed, by number; 0 is none."""

    def __init__(self, setups: list[Setup], log: RequestLog, logged: dict[str, Signature]) -> None:
        """`logged`: signatures of the packages that answered, as far as they are still there."""
        self._log, self._logged = log, logged
        self._candidates = {one.package: one.candidate for one in setups}
        self.decisions = Decisions(setups[0].signature)
        self.reasons = [""]
        self.speeds: tuple[Speed, ...] = ()
        self._sides = [Decider(one, self.decisions, list(self._candidates), self._reason) for one in setups]

    def _reason(self, text: str) -> int:
        if text not in self.reasons:
            self.reasons.append(text)
        return self.reasons.index(text)

    def pages(self) -> Iterator[Answered]:
        """Every page, decided; while one is counted, the next is asked and the one after it read."""
        with ExitStack() as stack:
            found = self._candidates.values()
            servers = [stack.enter_context(offline_server(one.package.directory)) for one in found]
            models = [Model(one, server, stack) for one, server in zip(found, servers, strict=True)]
            readers = [Reader(self._log, self._logged, model.signature, self._reason) for model in models]
            pool = stack.enter_context(ThreadPoolExecutor(1))
            pages, waiting = self._log.pages(), deque[_Page]()
            ahead = pool.submit(next, pages, None)
            while (table := ahead.result()) is not None:
                ahead = pool.submit(next, pages, None)
                waiting.append(_Page(table, self._log.kinds_of(table), readers, self._sides, models))
                if len(waiting) == FLIGHT:
                    yield waiting.popleft().answered()
            while waiting:
                yield waiting.popleft().answered()
            self.speeds = tuple(model.speed() for model in models)


class Reader:
    """Reads logged columns as the inputs of one model: the inverse of what the log makes of them."""

    def __init__(self, log: RequestLog, logged: dict[str, Signature], signature: Signature, reason: Any) -> None:
        self.signature, self._reason = signature, reason
        answered = [logged.get(kind["package_digest"]) for kind in log.kinds]
        there = [{one.name: one for one in found.inputs} if found else {} for found in answered]
        self._lacks = np.array([self._lacking(log.types, *one) for one in zip(log.kinds, there, strict=True)])
        self._could_be_null = {
            spec.name: np.array([spec.name in one and one[spec.name].nullable for one in there])
            for spec in signature.inputs
        }

    def _lacking(self, types: dict[str, str], kind: dict[str, Any], there: dict[str, Input]) -> int:
        """Why rows of a kind cannot be read; 0: they can."""
        if not kind["package_digest"]:
            return int(self._reason("no version was asked, so no inputs were kept"))
        for spec in self.signature.inputs:
            logged = types.get(f"in_{spec.name}")
            if logged is None or (there and spec.name not in there):
                return int(
                    self._reason(f"{spec.name} is no input of {kind['model']}:{kind['version']}, which answered")
                )
            if logged not in READABLE[spec.type]:
                return int(self._reason(f"input {spec.name} was logged as {logged}, which is no {spec.type}"))
            if kind["kept"] >= LEFT_OUT and not kind[f"in_{spec.name}"]:
                return int(self._reason(f"input {spec.name} was left out of the log (LOG_INPUTS)"))
        return 0

    def read(self, table: pa.Table, kinds: Array, starts: Array, known: dict[Input, Array]) -> Read:
        """The page, its requests checked as a gateway checks them. `known`: what another model's reader has made already."""
        import pyarrow as pa
        import pyarrow.compute as pc

        lacks, invalid = self._lacks[kinds], np.zeros(len(kinds), bool)
        not_kept = pc.equal(table.column("outcome"), "invalid").to_numpy()
        lacks[not_kept & (lacks == 0)] = self._reason("the request was invalid, so its inputs were not kept")
        columns = []
        for spec in self.signature.inputs:
            name = f"in_{spec.name}"
            column = table.column(name).combine_chunks() if name in table.column_names else None
            if column is None:  # then every row lacks it
                columns.append(np.zeros(len(kinds)))
                continue
            if spec not in known:
                known[spec] = _values(spec, column)
            columns.append(known[spec])
            if not spec.nullable and column.null_count:
                null = column.is_null().to_numpy(zero_copy_only=False)
                was_there = null & self._could_be_null[spec.name][kinds]
                invalid |= was_there
                why = self._reason(f"input {spec.name} was left out of the log (LOG_INPUTS)")
                lacks[null & ~was_there & (lacks == 0)] = why
            if spec.unseen == "refuse" and spec.categories:
                seen = pc.is_in(column, value_set=pa.array([*spec.categories, None], pa.string()))
                invalid |= ~seen.to_numpy(zero_copy_only=False)
        by_request = np.maximum.reduceat(lacks, starts), np.logical_or.reduceat(invalid, starts)
        return Read(columns, *by_request)


def _values(spec: Input, column: Any) -> Array:
    """A logged column as the wire's array; what may not be null and is becomes anything."""
    import pyarrow as pa

    if spec.type in ("string", "category"):
        return np.asarray(column.to_numpy(zero_copy_only=False), object)
    kind = packed_type(spec.type, nullable=spec.nullable)
    if kind == np.float64:
        whole = column.cast(pa.uint8()) if spec.type == "bool" else column
        return np.asarray(whole.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)
    nothing = NAT if spec.type == "timestamp" else 0 if spec.type == "int" else False
    return np.asarray(column.fill_null(nothing).to_numpy(zero_copy_only=False), kind)


class _Page:
    """A page under way: what no model is needed for is decided, the rest is being asked."""

    def __init__(
        self, table: pa.Table, kinds: Array, readers: list[Reader], sides: list[Decider], models: list[Model]
    ) -> None:
        self._table, self._kinds, self._sides = table, kinds, sides
        begins = table.column("row").to_numpy() == 0
        begins[0] = True
        starts = np.flatnonzero(begins)
        self._counts = np.diff(np.append(starts, len(kinds)))
        known: dict[Input, Array] = {}
        reads = [reader.read(table, kinds, starts, known) for reader in readers]
        self._plans = [side.plan(table, starts, reads) for side in sides]
        self._reasons = np.where(self._plans[0].reasons, self._plans[0].reasons, self._plans[1].reasons)
        self._asked: list[tuple[Array, Future[Floats]]] = []
        for at, (model, read) in enumerate(zip(models, reads, strict=True)):
            wanted = [(plan.codes == ASK) & (plan.targets == at) for plan in self._plans]
            requests = (wanted[0] | wanted[1]) & (self._reasons == 0)
            rows = np.repeat(requests, self._counts)
            columns = read.columns if rows.all() else [one[rows] for one in read.columns]
            self._asked.append((rows, model.pool.submit(model.ask, columns, self._counts[requests])))

    def answered(self) -> Answered:
        """The page, when the models have answered."""
        found = []
        for (rows, asked), plan in zip(self._asked, self._plans * 2, strict=False):
            numbers = np.full((len(rows), plan.numbers.shape[1]), np.nan)
            numbers[rows] = asked.result()
            found.append(numbers)
        codes, given_by = [], []
        for side, plan in zip(self._sides, self._plans, strict=True):
            said, given = np.repeat(plan.codes, self._counts), np.repeat(plan.numbers, self._counts, axis=0)
            asked_of = np.where(said == ASK, np.repeat(plan.targets, self._counts), -1)
            for at, theirs in enumerate(found):
                given[asked_of == at] = theirs[asked_of == at]
            failed = (asked_of >= 0) & np.isnan(given[:, 0])
            labels = label_codes(side.signature, np.nan_to_num(given), side.threshold)
            said = np.where(said == ASK, labels, said)
            said[failed], given[failed] = side.failed()
            codes.append(said)
            given_by.append(given)
        return Answered(self._table, self._kinds, codes, given_by, np.repeat(self._reasons, self._counts))
