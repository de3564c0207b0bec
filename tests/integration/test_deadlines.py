"""Deadlines travel with the request: to the client, into the log, and to the model, which leaves undone what nobody waits for."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from tests.house import FEATURES, House, Process, body, free_port, obey, running, trail, until

from interlock.model import oip_grpc
from interlock.predlog.record import Prediction
from interlock.registry.routes import Parameters

MODEL = "flight-delay"
SLOW = """
    if (raw["distance"] == 5.0).any():
        open(os.environ["BEGUN"], "w").close()
        while os.path.exists(os.environ["BEGUN"]):
            time.sleep(0.01)
"""


class Slow:
    """A house whose model needs, for a distance of 5, until the file `begun` is taken away; and a server with every door."""

    def __init__(self, house: House, begun: Path) -> None:
        self.house = house
        self.begun = begun
        self.port, self.rpc = free_port(), free_port()

    def late(self) -> int:
        """Batches that the model server left undone."""
        text = httpx.get(f"http://127.0.0.1:{self.port}/metrics").text
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("interlock_model_late_total"))


def question(distance: float) -> dict[str, Any]:
    content = body()
    content["inputs"][0]["data"] = [distance]
    return content


def outcomes(house: House) -> list[str]:
    return [one.outcome for one in trail(house.project.journals) if isinstance(one, Prediction)]


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slow]:
    folder = tmp_path_factory.mktemp("slow")
    house, head = House(folder / "house"), "def flight_features(raw):\n"
    found = house.package(1, "import os\nimport time\n" + FEATURES.replace(head, head + SLOW))
    house.approve(found)
    made = Slow(house, folder / "begun")
    route = house.route({"champion": (found, 10_000)}, parameters=Parameters(timeout_second=30.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEGUN", str(made.begun))
        server = house.serve(found, 0, "--port", str(made.port), "--grpc-port", str(made.rpc))
    with running(server, house.gateway()):
        obey(house, route.revision)
        yield made
    house.close()


def test_a_gateway_lets_nobody_in_before_its_model_servers_have_answered(slow: Slow) -> None:
    house, port = slow.house, free_port()
    late = Process(
        "gateway", "--project", str(house.project.root), "--slot", "1", "--port", str(port), "--grpc-port", str(free_port())
    )  # fmt: skip
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        busy = pool.submit(httpx.post, f"{house.url}/v2/models/{MODEL}/infer", json=question(5.0), timeout=20)
        until(slow.begun.exists, what="the slow one")
        threading.Timer(1.0, slow.begun.unlink).start()
        with running(late):
            assert httpx.post(f"http://127.0.0.1:{port}/v2/models/{MODEL}/infer", json=body()).status_code == 200
        assert busy.result().status_code == 200


@pytest.mark.parametrize("door", ["gateway", "model server"])
def test_a_grpc_deadline_travels_to_the_model(slow: Slow, door: str) -> None:
    house, before = slow.house, slow.late()
    known = len(outcomes(house))
    at_gateway = door == "gateway"
    url = house.url if at_gateway else f"http://127.0.0.1:{slow.port}"
    address = f"127.0.0.1:{house.grpc_port if at_gateway else slow.rpc}"
    with concurrent.futures.ThreadPoolExecutor(1) as pool, grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(20)
        ask = channel.unary_unary(f"/{oip_grpc.SERVICE}/ModelInfer")
        message = oip_grpc.question(MODEL, body()["inputs"], raw=False)
        ask(message)
        busy = pool.submit(httpx.post, f"{url}/v2/models/{MODEL}/infer", json=question(5.0), timeout=20)
        until(slow.begun.exists, what="the slow one")
        with pytest.raises(grpc.RpcError) as late:
            ask(message, timeout=0.3)
        assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        slow.begun.unlink()
        until(lambda: slow.late() == before + 1, what="the work that is left undone")
        assert busy.result().status_code == 200
        assert ask(message, timeout=20)
    if at_gateway:
        assert sorted(outcomes(house)[known:]) == ["answered", "answered", "answered", "timeout"]
