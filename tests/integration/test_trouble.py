"""Endpoints that get too much, versions that do not start, approvals that are taken back: what clients see."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.house import House, Process, body, obey, running, status, stopped, trail, until

from interlock.predlog.record import Prediction
from interlock.registry.routes import Parameters, Shadow, Standby, replica_name

INFER = "/v2/models/flight-delay/infer"
SECOND: list[Process] = []
"""The server of the second package."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Two packages, the first approved by rob and the second by rhea; a gateway, and a server for each."""
    made = House(tmp_path_factory.mktemp("trouble") / "house")
    made.packages_made = [made.package(1), made.package(2)]
    made.approve(made.packages_made[0])
    made.approve(made.packages_made[1], by="rhea")
    first, second = made.packages_made
    made.route({"champion": (first, 10_000)})
    with running(made.serve(first), server := made.serve(second), made.gateway()):
        SECOND.append(server)
        yield made
    made.close()


@pytest.fixture(autouse=True)
def calm(house: House) -> None:
    """Every test begins with the first package as champion."""
    champion(house, house.packages_made[0])


def champion(house: House, digest: str, **more: Any) -> None:
    """Wait until nobody but the champion answers, under the newest revision."""
    route = house.route({"champion": (digest, 10_000)}, **more)
    until(lambda: status(house).revision == route.revision, what="the revision")
    until(lambda: set(status(house).replicas.values()) == {digest}, what="the swap")


def ask(house: House, count: int, **parameters: Any) -> list[httpx.Response]:
    with (
        httpx.Client(base_url=house.url, timeout=30) as client,
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        return list(pool.map(lambda i: client.post(INFER, json=body(1, i, **parameters)), range(count)))


def codes(answers: list[httpx.Response]) -> set[int]:
    return {answer.status_code for answer in answers}


def records(house: House, prediction_id: str) -> dict[str, Prediction]:
    found = (one for one in trail(house.project.journals) if isinstance(one, Prediction))
    return {one.role: one for one in found if one.prediction_id == prediction_id}


def test_too_many_at_once_are_shed(house: House) -> None:
    second = house.packages_made[1]
    limit = Parameters(max_concurrency=2, timeout_second=1.0)
    champion(house, second, parameters=limit)
    with stopped(SECOND[0]):
        answers = ask(house, 8)
    assert codes(answers) == {429, 504}
    shed = next(answer for answer in answers if answer.status_code == 429)
    assert shed.headers["retry-after"] == "1"
    assert records(house, shed.json()["prediction_id"])["live"].outcome == "shed"


def test_a_version_that_does_not_start_leaves_the_old_one_serving(house: House) -> None:
    unborn = house.package(3)
    house.approve(unborn)
    first = house.packages_made[0]
    route = house.route({"champion": (unborn, 10_000)}, parameters=Parameters(threshold=0.0))
    until(lambda: status(house).revision == route.revision, what="the new revision")
    assert "no replica of champion answers yet" in (status(house).error or "")
    answers = ask(house, 5)
    assert {answer.json()["parameters"]["package_digest"] for answer in answers} == {first}
    assert {answer.json()["outputs"][1]["data"][0] for answer in answers} == {True}, "parameters hold at once"
    off = house.route({"champion": (unborn, 10_000)}, parameters=Parameters(activate=False))
    until(lambda: status(house).revision == off.revision, what="the kill switch")
    assert codes(ask(house, 2)) == {503}
    named = Parameters(active_model="challenger")
    on = house.route({"champion": (unborn, 9_000), "challenger": (unborn, 1_000)}, parameters=named)
    until(lambda: status(house).revision == on.revision, what="the way back")
    assert {answer.headers["x-interlock-package-digest"] for answer in ask(house, 5)} == {first}


def test_swaps_under_load_lose_no_request(house: House) -> None:
    first, second = house.packages_made
    stop, failed, versions = threading.Event(), [], set()

    def load() -> None:
        with httpx.Client(base_url=house.url, timeout=30) as client:
            while not stop.is_set():
                answer = client.post(INFER, json=body())
                if answer.status_code != 200:
                    failed.append(answer.text)
                versions.add(answer.headers["x-interlock-package-digest"])

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for i in range(6):
            champion(house, (second, first)[i % 2])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert (failed, versions) == ([], {first, second})


def test_a_shadow_is_asked_everything_and_answers_nobody(house: House) -> None:
    first = house.packages_made[0]
    shadowed = house.package(4)
    house.approve(shadowed, scope="shadow")
    name = replica_name(shadowed, 0, shadow=True)
    shadow = Shadow("flight-delay", 4, shadowed, "0.0.0-1.00000000", (name,), name="shadow")
    with running(server := house.serve(shadowed, shadow=True)):
        obey(house, house.route({"champion": (first, 10_000)}, shadows=(shadow,)).revision)
        until(lambda: status(house).arms.get("shadow") == 1, what="the shadow")
        for answer in ask(house, 5, unit_id="N1"):
            assert answer.headers["x-interlock-arm"] == "champion"
            found = until(lambda: len(records(house, answer.headers["x-interlock-prediction-id"])) == 2, what="both")  # noqa: B023
            assert found
            live, mirrored = (
                records(house, answer.headers["x-interlock-prediction-id"])[role] for role in ("live", "shadow")
            )
            assert (mirrored.arm, mirrored.version, mirrored.outcome) == ("shadow", 4, "answered")
            assert (mirrored.inputs, mirrored.experiment, mirrored.rows) == (live.inputs, "", 1)
            assert mirrored.outputs != live.outputs
        with stopped(server):
            assert codes(ask(house, 30)) == {200}
        server.kill()
        assert codes(ask(house, 10)) == {200}
        text = house.client.get(f"{house.url}/metrics").text
        assert 'shadow="shadow",outcome="dropped"' in text


def test_a_key_that_is_revoked_stops_what_it_signed(house: House) -> None:
    first, second = house.packages_made
    before = Standby("flight-delay", 2, second, "2.0.0-1.00000000", (replica_name(second, 0),))
    arms = {"champion": (first, 10_000)}
    obey(house, house.route(arms, standby=before).revision)
    house.revoked = {"rob"}
    try:
        house.write_trust()
        until(lambda: "is closed" in (status(house).error or ""), what="the closing")
        answer = ask(house, 1, unit_id="N1")[0]
        assert (answer.status_code, answer.headers["x-interlock-arm"]) == (200, "standby")
        assert answer.headers["x-interlock-package-digest"] == second
        assert records(house, answer.headers["x-interlock-prediction-id"])["live"].experiment == ""
        fixed = Parameters(on_revoked="fallback", fallback={"score": 0.2, "label": False})
        route = house.route(arms, standby=before, parameters=fixed)
        until(lambda: status(house).revision == route.revision, what="the other parameters")
        answer = ask(house, 1)[0]
        assert (answer.json()["outputs"][0]["data"], answer.headers["x-interlock-outcome"]) == ([0.2], "fallback")
        unheard = house.package(5)
        house.approve(unheard)
        house.route({"champion": (unheard, 10_000)})
        until(lambda: "no approval" in (status(house).error or "") or "not valid" in (status(house).error or ""))
    finally:
        house.revoked = set()
        house.write_trust()
    until(lambda: "is closed" not in (status(house).error or ""), what="the opening")


def test_a_rejected_champion_can_still_be_switched_off(house: House) -> None:
    doomed = house.package(6)
    house.approve(doomed)
    with running(house.serve(doomed)):
        arms = {"champion": (doomed, 10_000)}
        champion(house, doomed)
        house.approve(doomed, decision="reject")
        until(lambda: codes(ask(house, 1)) == {503}, what="the closing")
        off = house.route(arms, parameters=Parameters(activate=False))
        until(lambda: status(house).revision == off.revision, what="the kill switch")
        assert "deactivated" in ask(house, 1)[0].json()["error"]
