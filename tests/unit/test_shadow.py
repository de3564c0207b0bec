"""What shadows get: less of a busy gateway, and no more at once than a bounded amount."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.arms import endpoint, served

from interlock.core.ids import uuid7, uuid7_text
from interlock.gateway import shadow
from interlock.gateway.arms import Endpoint, ServedArm
from interlock.gateway.metrics import Metrics
from interlock.gateway.shadow import Shadows
from interlock.gateway.trail import Reply, Trail
from interlock.gateway.upstream import LostReplica
from interlock.model.columns import Columns, pack
from interlock.model.signature import Input, Signature
from interlock.predlog.journal import Journal

NUMBER = Signature("regression", (Input("x", "float"),))
TEXT = Signature("regression", (Input("x", "string", nullable=True),))
THOUSAND = Signature("multiclass", (Input("x", "float"),), tuple(range(1000)))


class Clock:
    """A second of the wall clock a look, of which the thread worked a share."""

    def __init__(self) -> None:
        self.now, self.worked = 0.0, 0.0

    def perf_counter(self) -> float:
        return self.now

    def perf_counter_ns(self) -> int:
        return int(self.now * 1e9)

    def thread_time(self) -> float:
        return self.worked

    def pass_second(self, busy: float) -> None:
        self.now, self.worked = self.now + 1.0, self.worked + busy


class Hung:
    """A replica that answers nothing until it goes away."""

    def __init__(self) -> None:
        self.live, self.load = True, 0
        self.gone = asyncio.Event()

    async def ask(self, *_: object) -> None:
        await self.gone.wait()
        raise LostReplica("it went away")


class Given:
    """A question that is these columns under every signature."""

    def __init__(self, columns: Columns) -> None:
        self.id: str | None = None
        self.parameters: dict[str, Any] = {}
        self._columns = columns

    def widen(self, signature: Signature) -> list[str]:
        return []

    def columns(self, signature: Signature) -> tuple[int, Columns]:
        return len(self._columns[0]), self._columns


def offered(shadows: Shadows, one: Endpoint, champion: ServedArm, columns: Columns) -> None:
    """Offer what the champion is asked."""
    reply, question = Reply(uuid7_text(), "e"), Given(columns)
    reply.read(champion, question, narrower=False)
    reply.packed = pack(champion.signature, reply.columns)
    shadows.offer(one, question, Trail(reply.prediction_id, 0, 0, reply.prediction_id), reply)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    made = Journal(tmp_path, uuid7(), reserve=0)
    yield made
    await made.close()


async def test_shadows_get_what_a_busy_gateway_has_left(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(shadow, "time", clock)
    shadows = Shadows(journal, Metrics())

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


@pytest.mark.parametrize(
    ("signature", "column", "room"),
    [
        pytest.param(NUMBER, [1.0] * 100, 10, id="rows"),
        pytest.param(NUMBER, [1.0], 1000, id="many small requests"),
        pytest.param(NUMBER, [1.0] * 5000, 1, id="a larger request alone"),
        pytest.param(TEXT, ["x" * (1 << 20), None], 3, id="bytes of a question"),
        pytest.param(THOUSAND, [1.0] * 100, 5, id="bytes of answers"),
    ],
)
async def test_only_so_much_waits_for_a_shadow(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, signature: Signature, column: list[Any], room: int
) -> None:
    monkeypatch.setattr(shadow, "time", Clock())  # the gateway is not busy
    metrics, champion, hung = Metrics(), served("champion", signature), Hung()
    shadows, one = Shadows(journal, metrics), endpoint(champion, served("shadow", signature, hung))

    def offer(count: int) -> None:
        for _ in range(count):
            offered(shadows, one, champion, [column])

    offer(room + 3)
    assert metrics.shadows == {("e", "shadow", "dropped"): 3}
    hung.gone.set()
    for _ in range(10):  # turns of the loop
        await asyncio.sleep(0)
    assert metrics.shadows["e", "shadow", "error"] == room
    hung.gone.clear()
    offer(room + 2)
    assert metrics.shadows == {("e", "shadow", "dropped"): 5, ("e", "shadow", "error"): room}


async def test_a_shadow_that_nobody_serves_gets_nothing(journal: Journal) -> None:
    metrics, champion = Metrics(), served("champion", NUMBER)
    offered(Shadows(journal, metrics), endpoint(champion, served("shadow", NUMBER)), champion, [[1.0]])
    assert metrics.shadows == {("e", "shadow", "dropped"): 1}
