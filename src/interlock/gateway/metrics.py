"""Counters of this gateway in Prometheus' text form. Plain integers on one event loop: no lock, no registry at import.

Names: OpenTelemetry's for HTTP servers, those of MLServer for inference requests, and ours for what only we have.
Source: https://opentelemetry.io/docs/specs/semconv/http/http-metrics/.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import msgspec

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Upper edges of durations, as OpenTelemetry advises."""
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0)
Labels = tuple[tuple[str, str], ...]
Key = TypeVar("Key", bound=tuple[str, ...])


class Histogram:
    """Counts by upper edge, and the sum."""

    __slots__ = ("counts", "edges", "sum")

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.edges = edges
        self.counts = [0] * (len(edges) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """One observation."""
        i = 0
        for edge in self.edges:
            if value <= edge:
                break
            i += 1
        self.counts[i] += 1
        self.sum += value


class ReplicaState(msgspec.Struct, frozen=True):
    """A replica's numbers at the moment."""

    name: str
    live: bool
    load: int
    ejections: int
    batches: Histogram


class Snapshot(msgspec.Struct, frozen=True):
    """What is not counted here but read when somebody asks."""

    journal_bytes: int
    revisions: Mapping[str, int]
    rule_errors: Mapping[tuple[str, str], int]
    replicas: Iterable[ReplicaState]


class Metrics:
    """What `/metrics` shows."""

    def __init__(self) -> None:
        self.requests: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self.models: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self.shadows: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self.unseen: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.narrower: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.latency: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(SECONDS))
        self.http: defaultdict[tuple[str, str, str], Histogram] = defaultdict(lambda: Histogram(SECONDS))
        self.active = 0
        self.unknown = 0
        self.feedback = 0
        self.retries = 0

    def count(self, endpoint: str, outcome: str, arm: str, version: str, latency_us: int) -> None:
        """One logged request."""
        self.requests[endpoint, arm, outcome] += 1
        self.models[endpoint, version, "success" if outcome in ("answered", "fallback") else "failure"] += 1
        self.latency[endpoint].add(latency_us / 1e6)

    def count_shadow(self, endpoint: str, shadow: str, outcome: str) -> None:
        """A question to a shadow: answered, timeout, error, or dropped."""
        self.shadows[endpoint, shadow, outcome] += 1

    def count_unseen(self, endpoint: str, name: str) -> None:
        """A category that training has not seen; it was answered."""
        self.unseen[endpoint, name] += 1

    def count_narrower(self, endpoint: str, name: str) -> None:
        """A tensor of a narrower datatype; it was widened."""
        self.narrower[endpoint, name] += 1

    def text(self, now: Snapshot) -> str:
        """The exposition format, version 0.0.4."""
        return "\n".join([*self._http(), *self._inference(), *self._ours(now)]) + "\n"

    def _http(self) -> Iterator[str]:
        yield from _histogram(
            "http_server_request_duration_seconds",
            {
                (("http_request_method", method), ("http_route", route), ("http_response_status_code", status)): one
                for (method, route, status), one in self.http.items()
            },
        )
        yield from _plain("http_server_active_requests", "gauge", {(): self.active})

    def _inference(self) -> Iterator[str]:
        for result in ("success", "failure"):
            yield from _plain(
                f"model_infer_request_{result}_total",
                "counter",
                {
                    (("model", model), ("version", version)): count
                    for (model, version, found), count in self.models.items()
                    if found == result
                },
            )

    def _ours(self, now: Snapshot) -> Iterator[str]:
        yield from _plain("interlock_requests_total", "counter", _labelled(self.requests, "endpoint", "arm", "outcome"))
        yield from _plain(
            "interlock_shadow_requests_total", "counter", _labelled(self.shadows, "endpoint", "shadow", "outcome")
        )
        yield from _plain("interlock_unseen_categories_total", "counter", _labelled(self.unseen, "endpoint", "input"))
        yield from _plain("interlock_narrower_inputs_total", "counter", _labelled(self.narrower, "endpoint", "input"))
        yield from _plain("interlock_rule_errors_total", "counter", _labelled(now.rule_errors, "endpoint", "rule"))
        yield from _histogram(
            "interlock_request_duration_seconds", {(("endpoint", name),): one for name, one in self.latency.items()}
        )
        yield from _plain(
            "interlock_route_revision", "gauge", {(("endpoint", name),): one for name, one in now.revisions.items()}
        )
        replicas = list(now.replicas)
        for name, kind, values in (
            ("live", "gauge", [int(one.live) for one in replicas]),
            ("queue_requests", "gauge", [one.load for one in replicas]),
            ("ejections_total", "counter", [one.ejections for one in replicas]),
        ):
            found: dict[Labels, int] = {
                (("replica", one.name),): value for one, value in zip(replicas, values, strict=True)
            }
            yield from _plain(f"interlock_replica_{name}", kind, found)
        yield from _histogram("interlock_batch_rows", {(("replica", one.name),): one.batches for one in replicas})
        for name, value in (
            ("unknown_endpoint_total", self.unknown),
            ("feedback_total", self.feedback),
            ("retries_total", self.retries),
            ("journal_bytes_total", now.journal_bytes),
        ):
            yield from _plain(f"interlock_{name}", "counter", {(): value})


def _labelled(counts: Mapping[Key, int], *names: str) -> dict[Labels, int]:
    return {tuple(zip(names, values, strict=True)): count for values, count in counts.items()}


def _plain(name: str, kind: str, values: Mapping[Labels, int]) -> Iterator[str]:
    yield f"# TYPE {name} {kind}"
    for labels, value in values.items():
        yield f"{name}{_braces(labels)} {value}"


def _histogram(name: str, values: Mapping[Labels, Histogram]) -> Iterator[str]:
    yield f"# TYPE {name} histogram"
    for labels, one in values.items():
        total = 0
        for edge, count in zip((*(f"{edge:g}" for edge in one.edges), "+Inf"), one.counts, strict=True):
            total += count
            yield f"{name}_bucket{_braces((*labels, ('le', edge)))} {total}"
        yield f"{name}_sum{_braces(labels)} {one.sum:.9g}"
        yield f"{name}_count{_braces(labels)} {total}"


def _braces(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
