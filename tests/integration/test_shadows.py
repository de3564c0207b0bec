"""Shadows at a real gateway that are many, hang, are slow, crash, lie or are asked too much: what clients and the log see."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.house import FEATURES, House, Process, body, checked, obey, rows, running, status, stopped, trail, until

from interlock.model import package
from interlock.model.columns import pack, unpack
from interlock.model.predictor import Predictor
from interlock.model.signature import Input
from interlock.model.wire import BatchAnswer, decode_request, frame, frames
from interlock.predlog.record import Prediction
from interlock.registry.routes import Parameters, Shadow, replica_name

E = "flight-delay"
INFER = f"/v2/models/{E}/infer"
SLOW, DEADLY = 777.0, 888.0
"""Distances for which the server of `touchy` takes a while, and at which it dies."""
TOUCHY = "import os\nimport time\n" + FEATURES.replace(
    "    return",
    f'    if (raw["distance"] == {SLOW}).any():\n        time.sleep(1.5)\n'
    f'    if (raw["distance"] == {DEADLY}).any():\n        os._exit(9)\n    return',
)
PACKAGES: dict[str, str] = {}
"""Name of a shadow → its package."""
SERVERS: dict[str, Process] = {}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A champion and its gateway; packages for four shadows, and servers for two: one that is well, one that is touchy."""
    made = House(tmp_path_factory.mktemp("shadows") / "house")
    champion = made.package(1)
    made.approve(champion)
    made.packages_made = [champion]
    PACKAGES.update(well=made.package(2), touchy=made.package(3, TOUCHY), liar=made.package(4))
    PACKAGES["wider"] = made.package(5, more=(Input("extra", "float"),))
    for found in PACKAGES.values():
        made.approve(found, scope="shadow")
    made.route({"champion": (champion, 10_000)})
    SERVERS.update({name: made.serve(PACKAGES[name], shadow=True) for name in ("well", "touchy")})
    with running(*SERVERS.values(), made.serve(champion), made.gateway()):
        yield made
    made.close()


def shadowed(house: House, *names: str, **parameters: Any) -> None:
    """Wait until these are the shadows, and are asked everything."""
    shadows = [
        Shadow(E, 2, PACKAGES[name], "0.0.0-1.00000000", (replica_name(PACKAGES[name], 0, shadow=True),), name=name)
        for name in names
    ]
    arms = {"champion": (house.packages_made[0], 10_000)}
    obey(house, house.route(arms, shadows=tuple(shadows), parameters=Parameters(**parameters)).revision)
    until(lambda: all(status(house).arms.get(name) == 1 for name in names), what="the shadows")
    until(lambda: handed(house, *names), what="time for shadows")


def ask(house: House, count: int = 1, distance: float | None = None, seed: int = 0, carrier: str = "") -> str:
    """A request that the champion answers; its prediction id."""
    content = body(count, seed)
    if distance is not None:
        content["inputs"][0]["data"] = [distance] * count
    if carrier:
        content["inputs"][3]["data"] = [carrier] * count
    answer = house.client.post(house.url + INFER, json=content)
    assert (answer.status_code, answer.headers["x-interlock-arm"]) == (200, "champion"), answer.text
    assert len(answer.json()["outputs"][0]["data"]) == count
    return answer.headers["x-interlock-prediction-id"]


def mirrored(house: House, asked: str) -> dict[str, Prediction]:
    """What the log says of the shadows of a request, by their names."""
    found = [one for one in trail(house.project.journals) if isinstance(one, Prediction) and one.prediction_id == asked]
    (live,) = (one for one in found if one.role == "live")
    assert (live.outcome, live.arm) == ("answered", "champion")
    return {one.arm: one for one in found if one.role == "shadow"}


def counted(house: House, name: str) -> Counter[str]:
    """Questions to a shadow so far, by outcome."""
    found: Counter[str] = Counter()
    start = f'interlock_shadow_requests_total{{endpoint="{E}",shadow="{name}",outcome="'
    for line in house.client.get(f"{house.url}/metrics").text.splitlines():
        if line.startswith(start):
            outcome, _, count = line.removeprefix(start).partition('"} ')
            found[outcome] = int(count)
    return found


def handed(house: House, *names: str) -> bool:
    """Whether a gateway, which may have been busy, hands ten questions over to these shadows; waits until they are answered."""
    before = {name: counted(house, name) for name in names}
    for _ in range(10):
        ask(house)
    until(lambda: all((counted(house, name) - before[name]).total() == 10 for name in names), what="ten answers")
    return all(counted(house, name)["dropped"] == before[name]["dropped"] for name in names)


def queued(house: House, name: str) -> int:
    """Requests that wait at the gateway for a shadow's replica."""
    start = f'interlock_replica_queue_requests{{replica="{replica_name(PACKAGES[name], 0, shadow=True)}"}} '
    text = house.client.get(f"{house.url}/metrics").text
    return next(int(line.removeprefix(start)) for line in text.splitlines() if line.startswith(start))


def test_every_shadow_is_asked_the_whole_request(house: House) -> None:
    shadowed(house, "well", "touchy")
    count = 300
    asked = ask(house, count, seed=5)
    found = until(lambda: len(told := mirrored(house, asked)) == 2 and told, what="both")
    for name in found:
        digest = PACKAGES[name]
        loaded = Predictor(package.verify(house.project.packages / digest.removeprefix("sha256:"), digest))
        columns = pack(loaded.signature, checked(loaded.signature, rows(count, 5)))
        scores = loaded.predict(unpack(loaded.signature, columns))[:, 0]
        told = found[name]
        assert (told.outcome, told.rows, told.package_digest, told.inputs) == ("answered", count, digest, columns)
        assert (told.unit_id, told.experiment, told.propensity, told.seq) == (asked, "", 0.0, 0)
        np.testing.assert_allclose(told.outputs[0], scores, rtol=1e-9)
        assert told.outputs[1] == (scores >= 0.5).tolist()
    assert found["well"].outputs != found["touchy"].outputs


def test_a_hung_shadow_keeps_nobody_waiting_and_nothing_for_good(house: House) -> None:
    shadowed(house, "well", "touchy", timeout_second=0.5)
    before = counted(house, "well")
    with stopped(SERVERS["well"]):
        asked = [ask(house, seed=seed) for seed in range(12)]
        for one in asked:
            told = until(lambda: len(told := mirrored(house, one)) == 2 and told, what="both")  # noqa: B023
            assert {name: record.outcome for name, record in told.items()} == {"well": "timeout", "touchy": "answered"}
        assert counted(house, "well") - before == {"timeout": 12}
        assert queued(house, "well") <= 2, "only what is on its way is kept"
    asked = [ask(house)]
    told = until(lambda: mirrored(house, asked[0]).get("well"), what="its answer")
    assert told.outcome == "answered"


def test_a_slow_shadow_is_dropped_where_it_does_not_keep_up(house: House) -> None:
    shadowed(house, "touchy", timeout_second=30.0)
    before = counted(house, "touchy")
    asked = [ask(house, 300, SLOW) for _ in range(6)]
    assert counted(house, "touchy") - before == {"dropped": 3}, "all are answered, and the shadow has not begun to"
    assert not any(mirrored(house, one) for one in asked)
    told = [until(lambda: mirrored(house, one), what="its answer") for one in asked[:3]]  # noqa: B023
    assert [(one["touchy"].outcome, one["touchy"].rows) for one in told] == [("answered", 300)] * 3
    assert all(one["touchy"].latency_us > 500_000 for one in told)
    assert counted(house, "touchy") - before == {"dropped": 3, "answered": 3}


def test_huge_requests_are_dropped_one_by_one(house: House) -> None:
    shadowed(house, "well", timeout_second=30.0)
    before = counted(house, "well")
    with stopped(SERVERS["well"]):
        asked = [ask(house, 5000), ask(house), ask(house, 5000)]
        assert counted(house, "well") - before == {"dropped": 2}, "one alone, then nobody until it is answered"
    told = until(lambda: mirrored(house, asked[0]), what="its answer")["well"]
    assert (told.outcome, told.rows) == ("answered", 5000)

    until(lambda: handed(house, "well"), what="time for shadows")
    before = counted(house, "well")
    with stopped(SERVERS["well"]):
        asked = [ask(house, carrier="x" * 3_000_000) for _ in range(3)]
        assert counted(house, "well") - before == {"dropped": 2}, "few rows, and too many bytes"
    told = until(lambda: mirrored(house, asked[0]), what="its answer")["well"]
    assert (told.outcome, told.rows) == ("answered", 1)


async def _pretend(path: Path, ready: threading.Event, end: threading.Event) -> None:
    """A server that has zeros for an answer; for one request of two rows, first nothing and then too much."""
    lies = [BatchAnswer(b"", {7: "nobody asked this"}, 1), BatchAnswer(bytes(8 * 3), {}, 1)]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        buffer = bytearray()
        while data := await reader.read(65536):
            buffer += data
            for number, payload in frames(buffer):
                counts = decode_request(payload).counts
                said = lies.pop(0) if counts == [2] else BatchAnswer(bytes(8 * sum(counts)), {}, 1)
                writer.write(frame(number, said))
        writer.close()

    server = await asyncio.start_unix_server(answer, str(path))
    ready.set()
    await asyncio.to_thread(end.wait)
    server.close()


@contextlib.contextmanager
def pretended(house: House, name: str) -> Iterator[None]:
    """A shadow that is no model server, for the time of a block."""
    ready, end = threading.Event(), threading.Event()
    path = house.project.make_sockets() / replica_name(PACKAGES[name], 0, shadow=True)
    thread = threading.Thread(target=lambda: asyncio.run(_pretend(path, ready, end)))
    thread.start()
    try:
        ready.wait()
        shadowed(house, name)
        yield
    finally:
        shadowed(house)
        until(lambda: PACKAGES[name] not in status(house).replicas.values(), what="its retirement")
        end.set()
        thread.join()
        path.unlink(missing_ok=True)


def test_a_lying_shadow_gets_no_answer_into_the_log(house: House) -> None:
    with pretended(house, "liar"):
        for _ in range(2):
            until(lambda: status(house).arms.get("liar") == 1, what="the liar")
            asked = ask(house, 2)
            told = until(lambda: mirrored(house, asked), what="the record")["liar"]  # noqa: B023
            assert (told.outcome, told.rows, told.outputs) == ("error", 0, [])
            assert "does not speak our protocol" in told.reason
            until(lambda: status(house).arms.get("liar") == 0, what="leaving it alone")


def test_a_shadow_with_another_input_is_an_error_in_the_log(house: House) -> None:
    with pretended(house, "wider"):
        before = counted(house, "wider")
        asked = ask(house, 3)
        told = until(lambda: mirrored(house, asked), what="the record")["wider"]
        assert (told.outcome, told.reason) == ("error", "input 'extra' is missing: expected FP64 (float)")
        assert (told.rows, told.inputs, told.package_digest) == (0, [], PACKAGES["wider"])
        assert counted(house, "wider") - before == {"error": 1}


def test_a_crashing_shadow_takes_nobody_along(house: House) -> None:
    shadowed(house, "touchy", "well")
    before = counted(house, "touchy")
    asked = ask(house, distance=DEADLY)
    told = until(lambda: len(told := mirrored(house, asked)) == 2 and told, what="both")
    assert (told["touchy"].outcome, told["well"].outcome) == ("error", "answered")
    assert "went away before it answered" in told["touchy"].reason
    assert SERVERS["touchy"].ended() == 9
    asked = ask(house)
    until(lambda: mirrored(house, asked).get("well"), what="the other one")
    assert counted(house, "touchy") - before == {"error": 1, "dropped": 1}
