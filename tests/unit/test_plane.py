"""How often the plane asks again when replicas go away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.arms import endpoint, served

from interlock.core.ids import uuid7
from interlock.gateway import plane
from interlock.gateway.arms import Endpoint
from interlock.gateway.metrics import Metrics
from interlock.gateway.plane import Plane
from interlock.gateway.questions import OipQuestion
from interlock.gateway.trail import INTERNAL, Reply, Trail, keep
from interlock.gateway.upstream import LostReplica
from interlock.model import oip
from interlock.model.answers import Answer
from interlock.model.signature import Input, Signature
from interlock.predlog.journal import Journal, SegmentReader, segments
from interlock.predlog.record import Prediction, Record

SIGNATURE = Signature("regression", (Input("x", "float"),))


class Lost:
    """A replica that goes away at every question, after so many seconds."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.asked = 0
        self.live, self.load = True, 0

    async def ask(self, *_: object) -> None:
        self.asked += 1
        await asyncio.sleep(self.seconds)
        raise LostReplica("it went away")


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    made = Journal(tmp_path, uuid7(), reserve=0)
    yield made
    await made.close()


def planned(journal: Journal, one: Endpoint) -> Plane:
    """A plane for one endpoint, which everybody may ask."""
    endpoints: Any = SimpleNamespace(get=lambda name: one, next_seq=lambda name: 1)
    access: Any = SimpleNamespace(require=lambda *_: None)
    return Plane(endpoints, journal, Metrics(), access)


async def ask(asked: Plane) -> Reply:
    def read() -> OipQuestion:
        return OipQuestion(oip.InferRequest([oip.Tensor("x", [1], "FP64", [1.0])]))

    return await asked.predict("e", read, {}, version="")


async def test_retries_end_with_their_budget(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plane, "RETRY_CREDIT", 4.0)
    replicas = [Lost() for _ in range(3)]
    asked = planned(journal, endpoint(served("champion", SIGNATURE, *replicas), retry=2))

    def count() -> int:
        return sum(one.asked for one in replicas)

    assert {type((await ask(asked)).error) for _ in range(2)} == {LostReplica}
    assert (count(), asked.metrics.retries) == (6, 4), "the credit is used up"
    for _ in range(100):
        await ask(asked)
    assert 18 <= asked.metrics.retries - 4 <= 21, "from then on one request in five is asked again"
    assert count() == 102 + asked.metrics.retries


async def test_nobody_is_asked_again_past_the_deadline(journal: Journal) -> None:
    replicas = [Lost(0.2), Lost(0.2)]
    asked = planned(journal, endpoint(served("champion", SIGNATURE, *replicas), retry=5, timeout_second=0.1))
    assert isinstance((await ask(asked)).error, LostReplica)
    assert ([one.asked for one in replicas], asked.metrics.retries) == ([1, 0], 0)


async def test_a_reply_that_cannot_be_logged_is_an_error_in_the_log_and_to_the_client(journal: Journal) -> None:
    asked = endpoint(served("a", SIGNATURE))
    reply = Reply("0198c5b8-0000-7000-8000-000000000001", "e", "answered", answer=Answer({"value": [2**64]}))
    said = keep(journal, asked, reply, Trail("r", 1, 1, "u"), 7, 5)
    await journal.written()
    (record,) = [one for one in _records(journal) if isinstance(one, Prediction)]
    assert (said.outcome, said.error and said.error.message) == ("error", INTERNAL)
    assert (record.prediction_id, record.seq, record.outcome, record.outputs) == (reply.prediction_id, 7, "error", [])


def _records(journal: Journal) -> list[Record]:
    reader = SegmentReader(segments(journal.folder.parent)[0])
    try:
        return [record for record, _ in reader.records()]
    finally:
        reader.close()
