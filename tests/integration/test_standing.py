"""A model server looks again: what is taken back while it serves stops it at its own doors, and a gateway is not disturbed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import grpc
import httpx
import pytest
from tests.commands import Commands
from tests.gate import Gate
from tests.house import House, Process, body, free_port, obey, running, until
from tests.wire_lab import together

from interlock.core.clock import FixedClock, SystemClock, iso
from interlock.core.trust import TrustKeeper
from interlock.model import inference_pb2 as pb
from interlock.model import oip_grpc
from interlock.model.package import verify
from interlock.registry.routes import Standby, replica_name
from interlock.serving.standing import Watched

MODEL = "flight-delay"
INFER = f"/v2/models/{MODEL}/infer"


class Doors:
    """A model server on two ports, and what it says there."""

    def __init__(self, project: House | Gate, found: str) -> None:
        self.port, self.rpc = free_port(), free_port()
        at, name = project.project, found.removeprefix("sha256:")
        root = project.fingerprint if isinstance(project, House) else at.root_fingerprint()
        self.process = Process(
            "model_server", "--package", str(at.packages / name), "--approval", str(at.approvals / name),
            "--trust", str(at.trust), "--root", root, "--port", str(self.port), "--grpc-port", str(self.rpc),
        )  # fmt: skip
        self.url = f"http://127.0.0.1:{self.port}"

    def rest(self) -> httpx.Response:
        return httpx.post(self.url + INFER, json=body(), timeout=20)

    def wait(self, status: int, seconds: float = 20.0) -> httpx.Response:
        until(lambda: self.rest().status_code == status, seconds, f"status {status}")
        return self.rest()

    def call(self, method: str = "ModelInfer") -> bytes | grpc.RpcError:
        message = oip_grpc.question(MODEL, body()["inputs"], raw=False) if method == "ModelInfer" else b""
        with grpc.insecure_channel(f"127.0.0.1:{self.rpc}") as channel:
            try:
                answer: bytes = channel.unary_unary(f"/{oip_grpc.SERVICE}/{method}")(message, timeout=20)
            except grpc.RpcError as error:
                return error
        return answer

    def refuses(self, why: str) -> None:
        """Every door refuses, and says why; the process lives."""
        answer = self.wait(403)
        assert why in answer.json()["error"]
        row = {tensor["name"]: tensor["data"][0] for tensor in body()["inputs"]}
        assert httpx.post(f"{self.url}/invocations", json={"dataframe_records": [row]}).status_code == 403
        error = self.call()
        assert isinstance(error, grpc.RpcError)
        assert error.code() == grpc.StatusCode.PERMISSION_DENIED
        for path in ("/readyz", "/v2/health/ready", f"/v2/models/{MODEL}/ready"):
            ready = httpx.get(self.url + path)
            assert (ready.status_code, ready.json()["ready"]) == (503, False)
            assert why in ready.json()["reason"]
        assert not pb.ServerReadyResponse.FromString(self.call("ServerReady")).ready
        assert httpx.get(f"{self.url}/livez").status_code == 200
        assert httpx.get(f"{self.url}/v2/models/{MODEL}").json()["parameters"]["approval"] == "refused"

    def serves(self) -> None:
        answer = self.wait(200)
        assert answer.json()["parameters"]["approval"] == "approved"
        assert isinstance(self.call(), bytes)
        assert httpx.get(f"{self.url}/readyz").status_code == 200


def test_a_revoked_key_stops_a_server_that_is_asked_directly(gate: Gate) -> None:
    name = gate.version(1)
    gate.say(name)
    doors = Doors(gate, gate.versions.named(name).package_digest)
    with running(doors.process):
        doors.serves()
        Commands(gate.project.root, gate.people.folder).json("keys", "revoke", "rob", "--reason", "lost", "--as", "ann")
        doors.wait(403, 5.0)
        doors.refuses("the key was not valid")
        gate.say(name, by="rhea")
        doors.serves()
        gate.say(name, by="rhea", decision="reject")
        doors.refuses("was rejected by rhea")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Two packages, the first approved by rob and the second by rhea."""
    made = House(tmp_path_factory.mktemp("standing") / "house")
    made.packages_made = [made.package(1), made.package(2)]
    made.approve(made.packages_made[0])
    made.approve(made.packages_made[1], by="rhea")
    yield made
    made.close()


def watched(house: House, clock: FixedClock, *, routed: bool) -> Watched:
    """As a server of the second package has it."""
    name = house.packages_made[1].removeprefix("sha256:")
    return Watched(
        verify(house.project.packages / name), "approved", approval=house.project.approvals / name,
        keeper=TrustKeeper(house.project.trust, house.fingerprint), scope="serve", clock=clock, routed=routed,
    )  # fmt: skip


@pytest.mark.parametrize("routed", [True, False])
def test_an_end_stops_a_server_without_any_file_changing_and_is_a_gateway_s_to_judge(
    house: House, routed: bool
) -> None:
    now = SystemClock().now()
    path = house.approve(house.packages_made[1], by="rhea", expires=iso(now + timedelta(days=1)))
    clock = FixedClock(now)
    one = watched(house, clock, routed=routed)
    assert (one.approved, one.refused) == ("approved", "")
    clock.at = now + timedelta(days=2)
    one.look()
    assert ("expired on" in one.refused, one.approved) == ((False, "approved") if routed else (True, "refused"))
    path.unlink()
    one.look()
    assert (one.approved, one.refused) == ("approved", "")


def test_a_trust_root_that_cannot_be_read_changes_nothing_and_hides_no_rejection(house: House) -> None:
    one = watched(house, FixedClock(SystemClock().now()), routed=True)
    good = house.project.trust.read_bytes()
    house.project.trust.write_bytes(good[:-9] + b"=" + good[-8:])
    try:
        one.look()
        assert one.refused == ""
        rejected = house.approve(house.packages_made[1], by="rhea", decision="reject")
        one.look()
        assert "was rejected by rhea" in one.refused
        rejected.write_bytes(b"{}")
        one.look()
        assert "was rejected by rhea" in one.refused  # the folder has not changed
        rejected.rename(rejected.with_name("2.dsse.json"))
        one.look()
        assert one.approved == "refused"
        rejected.with_name("2.dsse.json").unlink()
    finally:
        house.project.trust.write_bytes(good)
    one.look()
    assert (one.approved, one.refused) == ("approved", "")


def ask_until(over: threading.Event, url: str, answers: list[httpx.Response]) -> None:
    with httpx.Client(base_url=url, timeout=20) as client:
        while not over.is_set():
            answers.append(client.post(INFER, json=body()))


def socket_of(house: House, found: str) -> Path:
    return house.project.sockets / replica_name(found, 0)


def test_clients_of_a_gateway_notice_nothing_while_its_servers_refuse(house: House) -> None:
    """The champion before takes over before a server refuses, and the other way round."""
    first, second = house.packages_made
    before = Standby(MODEL, 2, second, "2.0.0-1.00000000", (replica_name(second, 0),))
    route = house.route({"champion": (first, 10_000)}, standby=before)
    answers: list[httpx.Response] = []
    over = threading.Event()
    thread = threading.Thread(target=ask_until, args=(over, house.url, answers))

    def last() -> str:
        digest: str = answers[-1].headers["x-interlock-package-digest"]
        return digest

    with running(house.serve(first), house.serve(second), house.gateway()):
        obey(house, route.revision)
        thread.start()
        try:
            until(lambda: answers and last() == first, what="the champion")
            house.revoked = {"rob"}
            house.write_trust()
            until(lambda: last() == second, what="the champion before")
            refused = until(lambda: together(socket_of(house, first), [100.0, 200.0]).failures, what="the refusal")
            assert sorted(refused) == [0, 1]
            assert all("the key was not valid" in why for why in refused.values())
            house.revoked = set()
            house.write_trust()
            until(lambda: last() == first, what="the champion")
            assert not together(socket_of(house, first), [100.0]).failures
        finally:
            over.set()
            thread.join()
    assert {answer.status_code for answer in answers} == {200}
