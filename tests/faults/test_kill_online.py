"""kill -9 of gateway, model server and recorder under traffic: every id a client holds is in the warehouse, once."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.house import House, Process, body, obey, until

from interlock.predlog.journal import HEADER, segments
from interlock.warehouse.ducklake import open_warehouse

pytestmark = pytest.mark.faults
INFER = "/v2/models/flight-delay/infer"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "house")
    made.packages_made = [made.package(1)]
    made.approve(made.packages_made[0])
    made.route({"champion": (made.packages_made[0], 10_000)}, replicas=2)
    yield made
    made.close()


class Clients:
    """Ask for predictions until told to stop; hold every id that came with an answer."""

    def __init__(self, url: str, count: int = 8) -> None:
        self.url = url
        self.held: list[tuple[str, int]] = []
        self.codes: dict[int, int] = {}
        self.broken = 0
        self.stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        with httpx.Client(base_url=self.url, timeout=10) as client:
            rows = number % 3 + 1
            content = body(rows, seed=number)
            while not self.stop.is_set():
                try:
                    answer = client.post(INFER, json=content)
                except httpx.TransportError:
                    with self._lock:
                        self.broken += 1
                    continue
                with self._lock:
                    self.codes[answer.status_code] = self.codes.get(answer.status_code, 0) + 1
                    if "x-interlock-prediction-id" in answer.headers:
                        held = rows if answer.status_code == 200 else 1
                        self.held.append((answer.headers["x-interlock-prediction-id"], held))

    def more(self, count: int) -> None:
        """Wait for that many further answers."""
        wanted = len(self.held) + count
        until(lambda: len(self.held) >= wanted, what=f"{count} more answers")

    def end(self) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join()


def test_nothing_is_lost_and_nothing_doubled(house: House) -> None:
    found = house.packages_made[0]
    with contextlib.ExitStack() as stack:

        def start(process: Process) -> Process:
            stack.callback(process.stop)
            return process.ready()

        recorder = start(house.recorder())
        servers = [start(house.serve(found, 0)), start(house.serve(found, 1))]
        gateways = [start(house.gateway(0)), start(house.gateway(1))]
        obey(house, 1)
        clients = Clients(house.url)
        stack.callback(clients.end)
        for number in range(3):
            clients.more(60)
            gateways[number % 2].kill()
            gateways[number % 2] = start(house.gateway(number % 2))
            clients.more(60)
            servers[number % 2].kill()
            clients.more(60)
            recorder.kill()
            servers[number % 2] = start(house.serve(found, number % 2))
            recorder = start(house.recorder())
        clients.more(60)
        clients.end()
        assert clients.codes.get(200, 0) > 500
        for process in gateways:
            process.stop()
        until(lambda: _written(house), what="an empty journal")
        recorder.stop()
    warehouse = open_warehouse(house.project.warehouse, read_only=True)
    rows = warehouse.query(
        'select prediction_id::varchar as id, count(*) as n, count(distinct "row") as different, max("row") as last '
        "from interlock.predictions_flight_delay group by all"
    ).to_pylist()
    counted = {row["id"]: row for row in rows}
    for prediction_id, count in clients.held:
        row = counted[str(uuid.UUID(prediction_id))]
        assert (row["n"], row["different"], row["last"]) == (count, count, count - 1)
    assert all(row["n"] == row["different"] for row in rows)


def _written(house: House) -> bool:
    marks = open_warehouse(house.project.warehouse, read_only=True).marks()
    return all(path.stat().st_size <= marks.get(path.stem, HEADER.size) for path in segments(house.project.journals))


def test_a_killed_gateway_lets_its_port_go(house: House) -> None:
    gateway = house.gateway(0).ready()
    gateway.kill()
    gateway.stop()
    again = house.gateway(0).ready()
    assert house.client.get(f"{house.url}/livez").status_code == 200
    assert again.stop() == 0
