"""Counters of this gateway in Prometheus' text form. Plain integers on one event loop: no lock, no registry at import."""

from __future__ import annotations

from collections import defaultdict

BUCKETS_MS = (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500)


class Metrics:
    """What `/metrics` shows."""

    def __init__(self) -> None:
        self.requests: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self.shadows: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self.unseen: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.latency: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(BUCKETS_MS) + 1))
        self.latency_us: defaultdict[str, int] = defaultdict(int)
        self.unknown = 0
        self.feedback = 0
        self.retries = 0

    def count(self, endpoint: str, outcome: str, arm: str, latency_us: int) -> None:
        """One logged request."""
        self.requests[endpoint, arm, outcome] += 1
        self.latency_us[endpoint] += latency_us
        buckets, i = self.latency[endpoint], 0
        while i < len(BUCKETS_MS) and latency_us > BUCKETS_MS[i] * 1000:
            i += 1
        buckets[i] += 1

    def count_shadow(self, endpoint: str, shadow: str, outcome: str) -> None:
        """A question to a shadow: answered, timeout, error, or dropped."""
        self.shadows[endpoint, shadow, outcome] += 1

    def count_unseen(self, endpoint: str, name: str) -> None:
        """A category that training has not seen; it was answered."""
        self.unseen[endpoint, name] += 1

    def text(self, journal_bytes: int, revisions: dict[str, int]) -> str:
        """The exposition format, version 0.0.4."""
        lines = ["# TYPE interlock_requests_total counter"]
        for (endpoint, arm, outcome), count in self.requests.items():
            lines.append(f'interlock_requests_total{{endpoint="{endpoint}",arm="{arm}",outcome="{outcome}"}} {count}')
        lines.append("# TYPE interlock_shadow_requests_total counter")
        for (endpoint, shadow, outcome), count in self.shadows.items():
            lines.append(
                f'interlock_shadow_requests_total{{endpoint="{endpoint}",shadow="{shadow}",outcome="{outcome}"}} {count}'
            )
        lines.append("# TYPE interlock_unseen_categories_total counter")
        for (endpoint, name), count in self.unseen.items():
            lines.append(f'interlock_unseen_categories_total{{endpoint="{endpoint}",input="{_escaped(name)}"}} {count}')
        lines.append("# TYPE interlock_request_duration_seconds histogram")
        for endpoint, counts in self.latency.items():
            total = 0
            for limit, count in zip((*BUCKETS_MS, None), counts, strict=True):
                total += count
                edge = "+Inf" if limit is None else f"{limit / 1000:g}"
                lines.append(f'interlock_request_duration_seconds_bucket{{endpoint="{endpoint}",le="{edge}"}} {total}')
            lines.append(
                f'interlock_request_duration_seconds_sum{{endpoint="{endpoint}"}} {self.latency_us[endpoint] / 1e6}'
            )
            lines.append(f'interlock_request_duration_seconds_count{{endpoint="{endpoint}"}} {total}')
        lines.append("# TYPE interlock_route_revision gauge")
        lines += [f'interlock_route_revision{{endpoint="{name}"}} {number}' for name, number in revisions.items()]
        for name, value in (
            ("unknown_endpoint_total", self.unknown),
            ("feedback_total", self.feedback),
            ("retries_total", self.retries),
            ("journal_bytes_total", journal_bytes),
        ):
            lines += [f"# TYPE interlock_{name} counter", f"interlock_{name} {value}"]
        return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
