"""`experiment`, `monitors` and `alerts` as a person types them, over a real warehouse, with real keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.house import FEATURES
from tests.insight import E, Insight, judged

from interlock import cli
from interlock.core import signing
from interlock.core.files import write_atomic
from interlock.registry.routes import ExperimentRef, RouteDocument, RouteStore
from interlock.release import audit
from interlock.release.users import trust_of
from interlock.store.tables import experiments

START = datetime(2013, 7, 1, tzinfo=UTC)
UNITS = [f"N{number}" for number in range(1200)]
CONFIG = """
[[experiment.metrics]]
name = "brier"
numerator = "(out_score - label) ** 2"
[experiment]
expected_units = 1000
[[monitors]]
kind = "score"
window = "day"
"""
Run = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Insight]:
    made = Insight(tmp_path / "project", CONFIG)
    for name, key in made.keys.items():
        write_atomic(tmp_path / "people" / name, signing.private_pem(key), 0o600)
    monkeypatch.setenv("INTERLOCK_KEYS_DIR", str(tmp_path / "people"))
    monkeypatch.setenv("INTERLOCK_PROJECT", str(made.project.root))
    monkeypatch.delenv("INTERLOCK_USER", raising=False)
    yield made
    made.close()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = cli.run([*words, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return call


def ramp(house: Insight, champion: int = 5000) -> RouteDocument:
    """A champion and a challenger outside any experiment."""
    packages = ["sha256:" + str(number) * 64 for number in (1, 2)]
    shares = {"champion": (packages[0], champion), "challenger": (packages[1], 10_000 - champion)}
    return house.route(shares, experiment=ExperimentRef("old", 3, "", "tailnum"))


def test_an_experiment_from_start_to_decision(house: Insight, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = ramp(house)
    house.record(house.ask(before, UNITS[:5], START))  # the endpoint has a log
    assert run("experiment", E)[1]["error"]["code"] == "not_found"
    code, error = run("experiment", E, "start", "--as", "rob")
    assert (code, error["error"]["code"]) == (1, "refused")
    with house.database.read() as connection:
        assert connection.execute(experiments.select()).all() == []

    code, started = run("experiment", E, "start", "--as", "olga", "--reason", "is it better?")
    assert code == 0
    route = RouteStore(house.project.routes).read(E, trust_of(house.project))
    assert (route.experiment.id, route.experiment.phase, started["revision"]) == (started["id"], 1, route.revision)
    assert route.experiment.salt != before.experiment.salt
    assert started["policy_digest"] in route.reason
    assert run("experiment", E, "start", "--as", "olga")[1]["error"]["code"] == "conflict"

    noise = {"champion": 0.4, "challenger": 0.02}
    answered, labels = judged(house.ask(route, UNITS, START), lambda one: noise[one.arm], seed=1)
    house.record(answered, labels)
    code, shown = run("experiment", E)
    assert (code, shown["verdict"], shown["state"], shown["metric"]) == (0, "SHIP", "running", "brier")
    assert shown["low"] < shown["effect"] < shown["high"] < 0
    assert 0.001 < shown["srm_p"] <= 1
    cli.run(["experiment", E])
    said = capsys.readouterr().out
    assert "% lower" in said
    assert f"interlock experiment {E} decide --ship" in said

    for words in (("decide", "--ship"), ("decide", "--ship", "--keep", "--reason", "r"), ("decide", "--reason", "r")):
        assert run("experiment", E, *words, "--as", "olga")[0] == 2
    assert run("experiment", E, "decide", "--ship", "--reason", "r")[0] == 2  # nobody acts
    cli.run(["experiment", E, "decide", "--ship", "--reason", "it is better", "--as", "rob"])
    assert f"interlock promote {E} challenger" in capsys.readouterr().out
    house.record(house.ask(route, UNITS, START + timedelta(hours=5)), {})
    decided = run("experiment", E)[1]
    assert (decided["decision"], decided["decided_by"], decided["reason"]) == ("ship", "rob", "it is better")
    assert decided["verdict"] == "SHIP"
    assert decided["elapsed_s"] == shown["elapsed_s"]  # what was decided upon, not what came since
    entry = audit.entries(house.database, E)[-1]
    assert (entry.actor, entry.action, entry.reason) == ("rob", "experiment decide", "it is better")
    assert run("experiment", E, "decide", "--keep", "--reason", "r", "--as", "rob")[1]["error"]["code"] == "conflict"
    assert RouteStore(house.project.routes).current(E) == route.revision  # nothing ships by itself
    assert run("experiment", E, "start", "--as", "olga")[0] == 0  # and the next one may begin


def test_what_cannot_be_compared_does_not_start(house: Insight, run: Run) -> None:
    ramp(house, 10_000)
    code, error = run("experiment", E, "start", "--as", "olga")
    assert (code, error["error"]["code"]) == (1, "conflict")
    assert "deploy" in error["error"]["next"]
    house.record(house.ask(ramp(house), UNITS[:5], START))
    text = house.project.config.read_text()
    house.project.config.write_text(text.replace("out_score -", "out_scoer -"))
    code, error = run("experiment", E, "start", "--as", "olga")
    assert (code, "out_scoer" in error["error"]["message"]) == (1, True)
    house.project.config.write_text(text.replace("[[experiment.metrics]]", "[[extra]]").split("[[extra]]")[0])
    code, error = run("experiment", E, "start", "--as", "olga")
    assert (code, error["error"]["code"]) == (1, "misconfigured")


def test_an_endpoint_that_nobody_has_asked_yet(house: Insight, run: Run) -> None:
    ramp(house)
    assert run("monitors", E, "--run")[1] == {"items": []}
    assert run("experiment", E, "start", "--as", "olga")[0] == 0
    shown = run("experiment", E)[1]
    assert (shown["verdict"], shown["units"]) == ("INVALID", 0)


def test_a_policy_that_was_altered_is_noticed(house: Insight, run: Run) -> None:
    route = ramp(house)
    house.record(house.ask(route, UNITS[:5], START))
    run("experiment", E, "start", "--as", "olga")
    with house.database.write() as connection:
        policy = connection.execute(experiments.select()).one().policy
        connection.execute(experiments.update().values(policy=policy.replace("0.05", "0.5")))
    assert run("experiment", E)[1]["error"]["code"] == "tampered"
    assert run("experiment", E, "decide", "--keep", "--reason", "r", "--as", "rob")[1]["error"]["code"] == "tampered"
    stopped = run("experiment", E, "decide", "--stop", "--reason", "the policy was altered", "--as", "rob")
    assert (stopped[0], stopped[1]["decision"]) == (0, "stop")
    assert run("experiment", E)[1]["reason"] == "the policy was altered"


def test_monitors_and_alerts(house: Insight, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("monitors", E)[1] == {"items": []}
    package = house.package(1, FEATURES.replace("666.0", "-1.0"))
    route = house.route({"champion": (package, 10_000)})
    for day in range(2):
        house.record(house.ask(route, [f"N{number}" for number in range(600)], START + timedelta(days=day)))
    assert run("monitors", E, "--all")[0] == 2
    code, last = run("monitors", E, "--run", "--all")
    (reading,) = last["items"]
    assert (code, reading["monitor"], reading["verdict"], reading["n"]) == (0, "score:day", "alert", 600)
    assert reading["value"] > reading["threshold"]
    (alert,) = run("alerts")[1]["items"]
    assert (alert["state"], alert["monitor"], alert["window_start"][:10]) == ("FIRING", "score:day", "2013-07-02")
    assert {"value", "threshold", "n", "version", "since", "text", "first_check"} <= alert.keys()
    cli.run(["alerts"])
    assert f"interlock alerts ack {alert['id']}" in capsys.readouterr().out

    code, acked = run("alerts", "ack", alert["id"], "--as", "olga", "--reason", "on it")
    assert (code, acked["state"], acked["changed_by"]) == (0, "ACKED", "olga")
    assert run("alerts", "ack", alert["id"], "--as", "olga")[1]["error"]["code"] == "conflict"
    assert run("alerts", "silence", alert["id"], "--hours", "0", "--as", "olga")[0] == 2
    assert run("alerts", "silence", alert["id"], "--hours", "2", "--as", "olga")[1]["silenced_until"] is not None
    assert run("alerts", "resolve", alert["id"], "--as", "olga")[1]["state"] == "RESOLVED"
    assert run("alerts")[1] == {"items": []}
    assert [one["state"] for one in run("alerts", "list", "--all")[1]["items"]] == ["RESOLVED"]
    assert run("alerts", "resolve", "nothing", "--as", "olga")[1]["error"]["code"] == "not_found"
    assert run("alerts", "ack")[0] == 2
    trail = [(one.actor, one.action) for one in audit.entries(house.database, E)]
    assert trail == [("olga", "alert ack"), ("olga", "alert silence"), ("olga", "alert resolve")]
    audit.verify(house.database)
