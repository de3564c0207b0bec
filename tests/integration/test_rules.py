"""`interlock rules` as a person types it: real packages, keys, signed routes, and a log in a real warehouse."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from tests.insight import E, Insight

from interlock import cli
from interlock.core import signing
from interlock.core.files import write_atomic
from interlock.registry.packages import PackageStore
from interlock.registry.routes import Parameters, RouteStore, Rule
from interlock.release import audit, rules, trial
from interlock.release.users import trust_of

START = datetime(2013, 7, 1, tzinfo=UTC)
FALLBACK = {"score": 0.4, "label": False}
Run = Callable[..., tuple[int, dict[str, Any]]]
REFUSE = ("--then", "refuse", "--reason", "not flown")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Insight]:
    """Two arms of real packages."""
    folder = tmp_path_factory.mktemp("rules")
    made = Insight(folder / "project")
    for name, key in made.keys.items():
        write_atomic(folder / "people" / name, signing.private_pem(key), 0o600)
    made.packages_made = [made.package(1), made.package(2)]
    for found in made.packages_made:
        made.approve(found)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTERLOCK_KEYS_DIR", str(folder / "people"))
        patch.setenv("INTERLOCK_PROJECT", str(made.project.root))
        patch.setenv("INTERLOCK_USER", "olga")
        yield made
    made.close()


@pytest.fixture
def run(house: Insight, capsys: pytest.CaptureFixture[str]) -> Run:
    """Type `interlock rules`, with a route of two arms and no rules to begin with."""
    first, second = house.packages_made
    house.route({"champion": (first, 7000), "challenger": (second, 3000)}, parameters=Parameters(fallback=FALLBACK))

    def call(*words: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = cli.run(["rules", E, *words, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return call


def current(house: Insight) -> tuple[Rule, ...]:
    return RouteStore(house.project.routes).read(E, trust_of(house.project)).rules


def test_rules_are_added_in_order_signed_audited_and_removed(house: Insight, run: Run) -> None:
    assert run() == (0, {"items": []})
    code, added = run("add", "far", "--when", "input.distance > 2000.0", *REFUSE)
    assert (code, added["gateways"], [rule["name"] for rule in added["rules"]]) == (0, 0, ["far"])
    assert run("add", "low", "--when", "unit == 'N1'", "--then", "answer", "--output", '{"score": 0.1}')[0] == 0
    assert run("add", "try", "--when", "time.getHours() > 21", "--then", "use", "--arm", "challenger")[0] == 0
    assert run("add", "safe", "--when", "input.temp == null", "--then", "fallback")[0] == 0
    assert current(house) == (
        Rule("far", "input.distance > 2000.0", "refuse", "not flown"),
        Rule("low", "unit == 'N1'", "answer", output={"score": 0.1}),
        Rule("try", "time.getHours() > 21", "use", arm="challenger"),
        Rule("safe", "input.temp == null", "fallback"),
    )
    assert run("add", "far", "--when", "true", *REFUSE)[1]["error"]["code"] == "conflict"
    assert run("remove", "low", "--reason", "no longer")[0] == 0
    assert [rule["name"] for rule in run("list")[1]["items"]] == ["far", "try", "safe"]
    assert run("remove", "low")[1]["error"]["code"] == "not_found"
    entry = audit.entries(house.database, E)[-1]
    assert (entry.actor, entry.action, entry.reason) == ("olga", "rules remove", "no longer")
    assert json.loads(entry.before or "")["rules"][0]["name"] == "low"
    assert "rules" not in json.loads(entry.after or "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--when", "input.dist > 1.0", *REFUSE), "does not fit the champion: the model has no input 'dist'"),
        (("--when", "false && unit == 3", *REFUSE), "string == int"),
        (("--when", "true", "--then", "refuse"), "--reason"),
        (("--when", "true", "--then", "use"), "--arm"),
        (("--when", "true", "--then", "use", "--arm", "other"), "no arm (there: champion, challenger)"),
        (("--when", "true", "--then", "answer"), "--output"),
        (("--when", "true", "--then", "answer", "--output", "0.1"), "no JSON object"),
        (("--when", "true", "--then", "answer", "--output", '{"score": "high"}'), "score cannot be 'high'"),
        (("--when", "true", "--then", "answer", "--output", '{"value": 0.1}'), "score and label"),
        (("--when", "true", "--then", "fallback", "--arm", "challenger"), "fallback"),
        (("--when", "true", *REFUSE, "--output", "{}", "--arm", "challenger"), "refuse takes"),
        (("--when", "true"), "no rule"),
    ],
)
def test_what_does_not_fit_is_refused_when_it_is_added(run: Run, words: tuple[str, ...], said: str) -> None:
    code, answer = run("add", "far", *words)
    assert (code, answer["error"]["code"]) == (2, "usage")
    assert said in answer["error"]["message"]


def test_a_slow_rule_a_65th_and_a_bad_name_are_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = r"unit == 'nobody' && unit.matches(r'\p{L}{200}')"  # a tenth of a second, for which no golden row asks
    code, answer = run("add", "slow", "--when", slow, *REFUSE)
    assert (code, "ms a row; 1 ms are allowed" in answer["error"]["message"]) == (2, True)
    monkeypatch.setattr(rules, "RULES", 1)
    assert run("add", "one", "--when", "true", *REFUSE)[0] == 0
    assert run("add", "two", "--when", "true", *REFUSE)[1]["error"]["code"] == "conflict"
    assert run("add", "Zwei", "--when", "true", *REFUSE)[0] == 2


def test_no_step_leaves_a_rule_without_what_it_needs(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("add", "try", "--when", "true", "--then", "use", "--arm", "challenger")[0] == 0
    assert cli.run(["retire", E, "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], error["next"]) == ("conflict", f"interlock rules {E} remove try")
    assert run("remove", "try")[0] == 0
    assert run("add", "safe", "--when", "input.temp == null", "--then", "fallback")[0] == 0
    assert cli.run(["params", E, "FALLBACK=error", "--json"]) == 1
    assert "falls back" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert cli.run(["params", E, "ACTIVATE=false"]) == 0


def test_rules_are_tried_on_the_log(
    run: Run, house: Insight, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trial, "PAGE", 64)
    route = RouteStore(house.project.routes).read(E, trust_of(house.project))
    made = house.ask(route, [f"N{number}" for number in range(200)], START)
    two = {"rows": 2, "outputs": [[0.4, 0.4], [False, False]]}
    times = [1_370_000_000_000_000, 1_270_000_000_000_000]
    made += house.ask(route, ["X1"], START, inputs=[[1.0, 9999.0], [None, 3.0], [1, 2], ["AA", "AA"], times], **two)
    made += house.ask(route, ["X2"], START, outcome="refused", outputs=[], inputs=[[9999.0], [1.0], [1], ["AA"], [1]])
    made += house.ask(route, ["X3"], START, outcome="invalid", outputs=[], inputs=[], rows=0)
    house.record(made)
    far = {one.unit_id for one in made if one.inputs and max(value or 0.0 for value in one.inputs[0] or []) > 2000.0}
    when = ("--when", "input.distance > 2000.0")

    code, told = run("test", *when, *REFUSE)
    assert (code, told["requests"], told["changed"]) == (0, 202, len(far) - 1)  # X2 was refused already
    (row,) = told["rules"]
    assert row == {"rule": "new", "matched": len(far), "decided": len(far), "changed": len(far) - 1, "failed": 0,
                   "shadowed_by": ""}  # fmt: skip
    assert run("test", *when, *REFUSE, "--last", "65")[1]["requests"] == 65
    assert run("test", *when, *REFUSE, "--last", "0")[0] == 2

    assert run("add", "far", *when, *REFUSE)[0] == 0
    assert run("add", "farther", "--when", "input.distance > 2500.0", *REFUSE)[0] == 0
    assert (
        run("add", "never", "--when", "input.at < timestamp('2010-01-01T00:00:00Z') && unit != 'X1'", *REFUSE)[0] == 0
    )
    assert run("add", "warm", "--when", "input.temp > -100.0 || unit == 'N0'", "--then", "fallback")[0] == 0
    assert run("add", "use", "--when", "unit.startsWith('N')", "--then", "use", "--arm", "challenger")[0] == 0
    assert run("add", "low", "--when", "unit == 'X1'", "--then", "answer", "--output", '{"score": 0.4}')[0] == 0
    code, told = run("test")
    found = {row["rule"]: row for row in told["rules"]}
    assert [found["farther"][name] for name in ("shadowed_by", "decided", "changed")] == ["far", 0, 0]
    assert found["never"]["matched"] == 1  # X2 asked about the year 1970
    assert found["warm"]["failed"] == sum(list(one.inputs[1] or [0.0]).count(None) for one in made[:201])
    assert (found["warm"]["decided"] > 0, found["warm"]["changed"]) == (True, 0)  # they got what FALLBACK says
    champions = {one.unit_id for one in made[:200] if one.arm == "champion"}
    missing = {one.unit_id for one in made[:200] if one.inputs[1] == [None]} - far - {"N0"}
    assert (found["use"]["matched"], found["use"]["decided"]) == (200, len(missing))
    assert found["use"]["changed"] == len(missing & champions)
    assert told["changed"] == sum(row["changed"] for row in told["rules"])
    assert run("test", "--when", "unit == 'nobody'", *REFUSE)[1]["changed"] == 0

    cli.run(["rules", E, "test", "--when", "unit == 'nobody'", *REFUSE])
    said = capsys.readouterr().out
    for words in ("new never held", "farther is shadowed: far holds wherever it does", "changed 0 of 202 answers"):
        assert words in said


def test_a_way_back_drops_the_rules_that_do_not_fit(house: Insight) -> None:
    route = RouteStore(house.project.routes).read(E, trust_of(house.project))
    fits, gone = (
        Rule("fits", "input.distance > 2000.0", "refuse", "far"),
        Rule("gone", "input.gone > 1.0", "refuse", "x"),
    )
    away = Rule("away", "true", "use", arm="nobody")
    packages = PackageStore(house.project.packages)
    assert rules.without_misfits(msgspec.structs.replace(route, rules=(gone, fits, away)), packages).rules == (fits,)
