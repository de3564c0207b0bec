"""A gateway that is busy asks its shadows less often, and more often again when it is not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from interlock.core.ids import uuid7
from interlock.gateway import shadow
from interlock.gateway.metrics import Metrics
from interlock.gateway.shadow import Shadows
from interlock.predlog.journal import Journal


class Clock:
    """A second of the wall clock a look, of which the thread worked a share."""

    def __init__(self) -> None:
        self.now, self.worked = 0.0, 0.0

    def perf_counter(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.worked

    def pass_second(self, busy: float) -> None:
        self.now, self.worked = self.now + 1.0, self.worked + busy


async def test_shadows_get_what_a_busy_gateway_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, metrics = Clock(), Metrics()
    monkeypatch.setattr(shadow, "time", clock)
    journal = Journal(tmp_path, uuid7(), reserve=0)
    shadows = Shadows(journal, metrics)
    closed = SimpleNamespace(arm=SimpleNamespace(package_digest="sha256:0", name="shadow"), closed="", live=False)
    endpoint: Any = SimpleNamespace(shadows=(closed,), route=SimpleNamespace(endpoint="e"))

    def asked(questions: int) -> int:
        return sum(not shadows.spared() for _ in range(questions))

    assert asked(64) == 64
    for _ in range(10):
        clock.pass_second(busy=0.9)
        shadows.spared()
    assert asked(64) == 1
    for _ in range(30):
        clock.pass_second(busy=0.1)
        shadows.spared()
    assert asked(64) == 64
    shadows.offer(endpoint, None, None, SimpleNamespace(rows=1))  # type: ignore[arg-type]  # dropped before it is looked at
    assert metrics.shadows == {("e", "shadow", "dropped"): 1}
    await journal.close()
