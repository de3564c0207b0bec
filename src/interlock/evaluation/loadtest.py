"""The load test: a package as it will run, asked at the load that is expected, at twice that, and up to where it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import uvloop

from interlock.core.clock import SystemClock, iso
from interlock.core.errors import InterlockError, PredictionFailed, Usage
from interlock.core.project import Project
from interlock.evaluation.evaluate import Candidate, Log
from interlock.evaluation.held_out import held_out
from interlock.evaluation.open_loop import CONNECTIONS, Client, Step
from interlock.evaluation.proof import offline_server
from interlock.evaluation.report import Subject
from interlock.evaluation.subjects import takes
from interlock.model import oip
from interlock.model.columns import to_lists
from interlock.model.frames import from_frame
from interlock.model.manifest import Manifest
from interlock.registry.routes import RouteDocument
from interlock.training.extract import read
from interlock.warehouse.port import Warehouse
from interlock.warehouse.skew import busiest_hour, has_log, sample

SEED = 2013
WARM_SECONDS, SEARCH_SECONDS, SEARCH_STEPS = 1.0, 1.0, 8
CLOSE = 1.1
"""The search ends when the rates that it is between are so near to each other."""
DEFAULT_RATE, SLOWEST_RATE = 50.0, 10.0
"""Requests a second where there is no log; and at least, where the log is quieter: fewer say nothing of a percentile."""
FEWEST = 20
REQUESTS = 1000


class Load(msgspec.Struct, frozen=True):
    """At `rate` requests a second for `seconds`, and from where that is known; every answer within TIMEOUT_SECOND."""

    rate: float
    rate_from: Literal["--rate", "interlock.toml", "log", "default"]
    seconds: float
    deadline_s: float


class LoadTest(msgspec.Struct, frozen=True):
    """Numbers of one model server over REST on a Unix socket, asked `requests` different requests of `rows` rows in all.

    alone_ms: median latency of one request after the other. held_rate: the highest that met the deadline, 0 = none;
    breaks_rate: the lowest that did not, None = the client was the limit. memory_mb: the server's peak resident memory.
    machine_load: its load average before the test.
    """

    format: Literal[1]
    subject: Subject
    endpoint: str
    load: Load
    source: Literal["log", "held-out"]
    requests: int
    rows: int
    seed: int
    alone_ms: float
    steps: tuple[Step, ...]
    held_rate: float
    breaks_rate: float | None
    start_seconds: float
    memory_mb: float
    package_bytes: int
    cores: int
    processor: str
    machine_load: float
    created: str

    @property
    def limit(self) -> str:
        """Where the deadline breaks, in words."""
        if self.breaks_rate is None:
            return f"not below {self.held_rate:g}/s (the client is the limit)"
        return f"between {self.held_rate:g}/s and {self.breaks_rate:g}/s"


def load_test(
    project: Project, warehouse: Warehouse, candidate: Candidate, route: RouteDocument | None, load: Load, log: Log
) -> LoadTest:
    """Start a model server of the package, and ask it what `route`'s endpoint was asked, or else held-out rows.

    Raises:
        Usage: so few requests that their percentiles say nothing.
        InterlockError: the server does not start, does not answer, or ends; PredictionFailed: it refuses a request.
    """
    if not (load.seconds > 0 and load.rate * load.seconds >= FEWEST):
        raise Usage(
            f"{load.rate:g} requests a second for {load.seconds:g} s are under {FEWEST}", next="raise --seconds"
        )
    source, rows, requests = _requests(project, warehouse, candidate.package.manifest, route)
    machine = _lines("/proc/cpuinfo", "model name"), round(os.getloadavg()[0], 2)
    with offline_server(candidate.package.directory) as server:
        server.wait()
        client, http = Client(requests, load.deadline_s, SEED), server.socket.with_name(server.socket.name + ".http")
        try:
            alone, steps = uvloop.run(_measure(client, http, load, log))
        except ExceptionGroup as found:  # `except*` would put what is raised here into a group again
            lost, other = found.split((OSError, EOFError))
            if lost is None or other is not None:
                raise
            with contextlib.suppress(subprocess.TimeoutExpired):  # it lives, and does not answer
                code = server.child.process.wait(1.0)
                raise InterlockError(f"the model server ended during the load test (exit code {code})") from None
            raise InterlockError(f"the model server does not answer: {lost.exceptions[0]!r}") from None
        broken = min((one.rate for one in steps if one.verdict == "broken"), default=None)
        held = [one.rate for one in steps if one.verdict == "held" and (broken is None or one.rate < broken)]
        return LoadTest(
            format=1,
            subject=candidate.subject,
            endpoint=route.endpoint if route else "",
            load=load,
            source=source,
            requests=len(requests),
            rows=rows,
            seed=SEED,
            alone_ms=round(alone * 1000, 3),
            steps=tuple(steps),
            held_rate=max(held, default=0.0),
            breaks_rate=broken,
            start_seconds=server.start_seconds(),
            memory_mb=round(int(_lines(f"/proc/{server.child.pid}/status", "VmHWM").split()[0]) / 1024, 1),
            package_bytes=sum(one.size for one in candidate.package.manifest.files),
            cores=len(os.sched_getaffinity(0)),
            processor=machine[0],
            machine_load=machine[1],
            created=iso(SystemClock().now()),
        )


async def _measure(client: Client, http: Path, load: Load, log: Log) -> tuple[float, list[Step]]:
    async def step(name: Any, rate: float, seconds: float) -> Step:
        made = await client.run(name, rate, seconds)
        log(f"{name}: {made.n} requests at {rate:g}/s, p99 {made.p99_ms:g} ms: {made.verdict}")
        return made

    steps: list[Step] = []
    async with asyncio.TaskGroup() as group:
        connections = [group.create_task(client.connection(http)) for _ in range(CONNECTIONS)]
        log("warming up")
        alone = await client.alone(WARM_SECONDS)
        if not (refused := list(client.said)):
            steps.append(await step("expected", load.rate, load.seconds))
            steps.append(await step("twice", 2 * load.rate, load.seconds))
            seconds = max(SEARCH_SECONDS, 4 * alone)
            steps += await search(steps, 1 / alone, lambda rate: step("search", rate, seconds))
        for one in connections:
            one.cancel()
    if refused:
        raise PredictionFailed(f"the model server answered {refused[0]}")
    return alone, steps


async def search(known: list[Step], guess: float, ask: Callable[[float], Awaitable[Step]]) -> list[Step]:
    """Close in on the rate that breaks the deadline: double or halve until it lies between two, then bisect by ratio.

    known: steps made already. guess: a rate to go on with, if it is over twice those that were held.
    """
    made: list[Step] = []
    for _ in range(SEARCH_STEPS):
        steps = [*known, *made]
        high = min((one.rate for one in steps if one.verdict != "held"), default=np.inf)
        low = max((one.rate for one in steps if one.verdict == "held" and one.rate < high), default=0.0)
        if high < CLOSE * low:
            break
        rate = max(2 * low, 0 if made else guess) if high == np.inf else (low * high) ** 0.5 if low else high / 2
        made.append(await ask(float(f"{rate:.3g}")))
    return made


def expected(
    project: Project, warehouse: Warehouse, route: RouteDocument | None, rate: float | None, seconds: float
) -> Load:
    """The load: `rate`, else what interlock.toml expects, else the busiest hour of the log, else 50 requests a second."""
    settings = project.settings().endpoint
    deadline = route.parameters.timeout_second if route else settings.timeout_second
    if rate is not None:
        return Load(rate, "--rate", seconds, deadline)
    if settings.expected_rate is not None:
        return Load(settings.expected_rate, "interlock.toml", seconds, deadline)
    if route is not None and has_log(warehouse, route.endpoint):
        measured = round(busiest_hour(warehouse, route.endpoint), 1)
        return Load(max(measured, SLOWEST_RATE), "log", seconds, deadline)
    return Load(DEFAULT_RATE, "default", seconds, deadline)


def _requests(
    project: Project, warehouse: Warehouse, manifest: Manifest, route: RouteDocument | None
) -> tuple[Literal["log", "held-out"], int, list[bytes]]:
    """Logged requests, whole, of versions with all inputs of this one; else held-out rows, one a request. Source, rows, HTTP."""
    names = {spec.name for spec in manifest.signature.inputs}
    if route is not None and has_log(warehouse, route.endpoint):
        table = sample(warehouse, route.endpoint, "request_id", manifest.signature.inputs, requests=REQUESTS)
        packages = table.column("package_digest").to_pylist()
        whole = {one for one, theirs in takes(project, packages).items() if names <= theirs}
        table = table.filter([one in whole for one in packages])
        if len(table):
            ids = table.column("prediction_id").to_numpy()
            starts = [0, *(np.flatnonzero(ids[1:] != ids[:-1]) + 1).tolist(), len(table)]
            frame = table.to_pandas()[[f"in_{name}" for name in names]].rename(columns=lambda name: name[3:])
            return "log", len(table), _posts(manifest, frame, starts)
    frame = held_out(manifest, read(project, manifest.lineage.extract_digest)).table.frame[:REQUESTS]
    return "held-out", len(frame), _posts(manifest, frame, list(range(len(frame) + 1)))


def _posts(manifest: Manifest, frame: Any, starts: list[int]) -> list[bytes]:
    """A request of the rows from each start to the next, as it goes over the wire."""
    lists, made = to_lists(manifest.signature.inputs, from_frame(manifest.signature.inputs, frame)), []
    for start, end in pairwise(starts):
        inputs = oip.write_inputs(manifest.signature, [column[start:end] for column in lists])
        body = oip.encode({"inputs": inputs})
        head = (
            f"POST /v2/models/{manifest.model}/infer HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        )
        made.append(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    return made


def _lines(path: str, name: str) -> str:
    """The first value of that name in a file of `name: value` lines."""
    found = (line.partition(":")[2].strip() for line in Path(path).read_text().splitlines() if line.startswith(name))
    return next(found, "unknown")
