"""An arm with two replicas of which one is in trouble: silent, slow, deaf, failing, lying or alone. Clients see nothing of it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.house import House, body, obey, running, status, stopped, until

from interlock.gateway.upstream import FAILURES, MAX_BYTES
from interlock.model.wire import BatchAnswer, BatchRequest, decode_request, frame, frames
from interlock.registry.routes import Parameters, replica_name

INFER = "/v2/models/flight-delay/infer"
HONEST = 0.5
"""The score that the other replica gives."""


class Peer:
    """The second replica: speaks the protocol of model servers, and is as good as its `mood`."""

    def __init__(self, path: Path) -> None:
        self.mood = "honest"
        self.slow = 1.5
        """Seconds that an answer takes when it is."""
        self.questions = 0
        self.largest = 0
        self._path = path
        self._ready, self._end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> Peer:
        self._path.unlink(missing_ok=True)
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._path.unlink(missing_ok=True)

    async def _serve(self) -> None:
        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            buffer, last = bytearray(), asyncio.create_task(asyncio.sleep(0))
            writers.append(writer)
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(1 << 20):
                    buffer += data
                    for number, payload in frames(buffer):
                        self.largest = max(self.largest, len(payload))
                        last = asyncio.create_task(self._answer(number, decode_request(payload), writer, last))

        writers: list[asyncio.StreamWriter] = []
        server = await asyncio.start_unix_server(listen, str(self._path))
        self._ready.set()
        await asyncio.to_thread(self._end.wait)
        server.close()
        for writer in writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(
        self, number: int, asked: BatchRequest, writer: asyncio.StreamWriter, before: asyncio.Task[Any]
    ) -> None:
        mood, failures, rows = self.mood, dict[int, str](), sum(asked.counts)
        await before
        self.questions += len(asked.counts)
        if mood == "deaf":
            return
        if mood == "slow" and rows:
            await asyncio.sleep(self.slow)
        if mood == "failing":
            failures = dict.fromkeys(range(len(asked.counts)), "the disk is full")
        answer = frame(number, BatchAnswer(np.full(rows, HONEST).tobytes(), failures, 1))
        if mood == "lying" and rows:
            answer = frame(number, BatchAnswer(b"12345678" * (rows + 2), {}, 1)) + b"garbage"
        with contextlib.suppress(ConnectionError):
            writer.write(answer)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("replicas") / "house")
    made.packages_made = [made.package(1)]
    made.approve(made.packages_made[0])
    with running(made.serve(made.packages_made[0]), made.gateway()):
        yield made
    made.close()


@pytest.fixture
def peer(house: House) -> Iterator[Peer]:
    """The second of two replicas; the first is a real model server."""
    first = house.packages_made[0]
    path = house.project.make_sockets() / replica_name(first, 1)
    with Peer(path) as made:
        obey(house, house.route({"champion": (first, 10_000)}, replicas=2).revision)
        back(house, made)
        yield made


def live(house: House) -> int:
    return status(house).arms["champion"]


def ask(house: House, count: int, at_once: int = 8) -> list[httpx.Response]:
    with (
        httpx.Client(base_url=house.url, timeout=30) as client,
        concurrent.futures.ThreadPoolExecutor(at_once) as pool,
    ):
        return list(pool.map(lambda i: client.post(INFER, json=body(1, i)), range(count)))


def codes(answers: list[httpx.Response]) -> dict[int, int]:
    return Counter(answer.status_code for answer in answers)


def scores(answers: list[httpx.Response]) -> set[float]:
    good = [answer.json() for answer in answers if answer.status_code == 200]
    return {score for answer in good for score in answer["outputs"][0]["data"]}


def back(house: House, peer: Peer) -> None:
    """Both are asked, and answer."""
    until(lambda: {HONEST} < scores(ask(house, 20)), what="answers of both")
    assert codes(ask(house, 40)) == {200: 40}


@pytest.mark.parametrize("mood", ["slow", "deaf", "lying"])
def test_who_does_not_answer_is_ejected_and_probed_back(house: House, peer: Peer, mood: str) -> None:
    peer.mood = mood
    asked = peer.questions
    answers = ask(house, 60)
    assert codes(answers) == {200: 60}
    assert {len(answer.json()["outputs"][0]["data"]) for answer in answers} == {1}
    until(lambda: live(house) == 1, what="ejection")
    assert codes(ask(house, 60, at_once=1)) == {200: 60}
    assert peer.questions - asked < 40, "it is left alone"
    peer.mood = "honest"
    back(house, peer)


def test_who_fails_everything_is_ejected_and_probed_back(house: House, peer: Peer) -> None:
    peer.mood = "failing"
    until(lambda: codes(ask(house, 10))[200] == 10, what="answers of the other one alone")
    until(lambda: live(house) == 1, what="ejection")
    peer.mood = "honest"
    back(house, peer)


def test_requests_that_fail_everywhere_leave_one_replica_to_ask(house: House, peer: Peer) -> None:
    cursed = body(1)
    cursed["inputs"][0]["data"] = [666.0]
    peer.mood = "failing"
    with httpx.Client(base_url=house.url) as client:
        assert {client.post(INFER, json=cursed).status_code for _ in range(6 * FAILURES)} == {500}
    peer.mood = "honest"
    assert codes(ask(house, 20)) == {200: 20}
    back(house, peer)


def test_one_that_stops_again_and_again_costs_no_answer(house: House) -> None:
    first = house.packages_made[0]
    with running(second := house.serve(first, 1)):
        obey(house, house.route({"champion": (first, 10_000)}, replicas=2).revision)
        for _ in range(3):
            until(lambda: live(house) == 2, what="two replicas")
            ask(house, 20)
            with stopped(second):
                assert codes(ask(house, 60)) == {200: 60}
                until(lambda: live(house) == 1, what="ejection")
        until(lambda: live(house) == 2, what="the way back")


def test_the_only_one_is_asked_again_after_it_was_deaf(house: House) -> None:
    other = house.package(2)
    house.approve(other)
    with Peer(house.project.make_sockets() / replica_name(other, 0)) as alone:
        route = house.route({"champion": (other, 10_000)}, parameters=Parameters(timeout_second=0.5))
        obey(house, route.revision)
        until(lambda: codes(ask(house, 1)) == {200: 1}, what="the first answer")
        alone.mood = "deaf"
        assert codes(ask(house, 4)) == {504: 4}
        alone.mood = "honest"
        until(lambda: codes(ask(house, 1)) == {200: 1}, what="an answer")


def test_large_requests_do_not_share_a_message(house: House) -> None:
    """A message over the limit is refused whole: large ones travel apart, and the small ones get their answers."""
    large, other = body(1), house.package(3)
    large["inputs"][3]["data"] = ["x" * (9 << 20)]
    house.approve(other)
    with Peer(house.project.make_sockets() / replica_name(other, 0)) as alone:
        obey(house, house.route({"champion": (other, 10_000)}, parameters=Parameters(timeout_second=60.0)).revision)
        until(lambda: codes(ask(house, 1)) == {200: 1}, what="the first answer")
        alone.mood, alone.slow = "slow", 0.3
        with httpx.Client(base_url=house.url, timeout=60) as client, concurrent.futures.ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda i: client.post(INFER, json=body(1, i) if i % 2 else large), range(12)))
        assert codes(answers) == {200: 12}
        assert alone.largest <= MAX_BYTES
