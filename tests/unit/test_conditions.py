"""Conditions in CEL: what they mean for a request, and what is refused before it could ever be asked."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from interlock.core.errors import Usage
from interlock.gateway import rules as gateway_rules
from interlock.gateway.rules import compile_rules
from interlock.model.conditions import Conditions, Undecided
from interlock.model.signature import Input, Signature
from interlock.registry.routes import Rule

NAN = float("nan")
INPUTS = (
    Input("distance", "float"),
    Input("temp", "float", nullable=True),
    Input("stops", "int"),
    Input("carrier", "category"),
    Input("at", "timestamp"),
    Input("odd name", "bool"),
)
SIGNATURE = Signature(task="binary", inputs=INPUTS, classes=(False, True))
NOON = 1_370_000_000_000_000  # 2013-05-31T11:33:20Z, a Friday


def first(*texts: str, rows: int = 1, unit: str = "N17", event: int = NOON, **columns: list[Any]) -> int | None:
    """The first condition that holds for rows of given columns; the others are 3000.0, missing, 3, UA, NOON, true."""
    usual: dict[str, Any] = {"distance": 3000.0, "temp": NAN, "stops": 3, "carrier": "UA", "at": NOON, "odd name": True}
    every = [columns.get(name, [value] * rows) for name, value in usual.items()]
    return Conditions(texts, SIGNATURE).first(every, rows, unit, event)


@pytest.mark.parametrize(
    "text",
    [
        'input.distance > 2000.0 && unit.startsWith("N")',
        "input.distance > 2000 // an int is compared as a number",
        "input.stops == 3.0 && input.stops in [1, 2, 3]",
        "-input.stops < -2 && --input.stops > 2",
        'input["odd name"] ? input.carrier in ["AA", \'UA\'] : false',
        "!(input.stops > 3) || !true",
        "input.temp == null && null == input.temp && (input.temp) == null",
        "input.temp == null || input.temp > 3.0",
        "time == input.at && time - input.at < duration('1s')",
        "time > timestamp('2013-05-31T13:33:19+02:00') && time.getHours() == 11 && time.getDayOfWeek() == 5",
        "time + duration('24h') - duration('24h') == time",
        "unit.size() + size(unit) * 2 == 9 && 7 % 4 - 1 == 2",
        r"""unit.matches("^N\\d+$") && unit.matches(r'^N\d+$') && r"\" != unit""",
        "string(input.stops) + '!' == '3!' && int('3') == input.stops && double(input.stops) / 2.0 == 1.5",
        "1 + 2 * 3 == 7 && (1 + 2) * 3 == 9 && 2 - 1 - 1 == 0 && 0x10 == 16 && .5 < 1e3",
        "false && false || true",
        "!" * 4000 + "true",
    ],
)
def test_what_holds(text: str) -> None:
    assert first(text) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("input.dist > 1.0", "no input 'dist' (there: distance, temp, stops, carrier, at, odd name)"),
        ("input['other'] > 1.0", "no input 'other'"),
        ("input[unit] > 1.0", "no input"),
        ("true || input.carrier == 3", "string == int does not go together, in: input.carrier == 3"),
        ("true ? true : input.distance == 'far'", "double == string"),
        ("false && input.carrier > 3.0", "string > double"),
        ("input.carrier in [1, 2]", "string in int"),
        ("input.stops in [1, 'a']", "a list of int and string"),
        ("unit in 'abc'", "expected a list"),
        ("input.distance + 1 > 2.0", "double + int"),
        ("input.stops && true", "int && bool"),
        ("!input.stops", "!int"),
        ("-unit == unit", "-string"),
        ("true < false", "bool < bool"),
        ("true ? 1 == 1 : 2", "bool ? bool : int"),
        ("input.stops != null", "never null"),
        ("input.stops", "of type int"),
        ("input.stops.size() > 1", "there is no .size(int)"),
        ("unit.contains(3)", "there is no .contains(string, int)"),
        ("time.getHours('Europe/Berlin') > 1", "there is no .getHours(timestamp, string)"),
        ("unit.matches('(')", "unclosed group"),
        ("unit.matches(unit)", "a pattern has to be written out"),
        ("time > timestamp('tomorrow')", "timestamp"),
        ("time - time > duration('3 weeks')", "duration"),
        ("has(input.temp)", "there is no has(…)"),
        ("['N'].exists(x, unit == x)", "'[' is not known here"),
        ("frobnicate(unit)", "there is no frobnicate(…)"),
        ("other == 3", "'other' is not known here"),
        ("input", "expected '.'"),
        ("1u == 1u", "'u' is not known here"),
        ("unit[0] == 'N'", "'[' is not known here"),
        ("{'a': 1}.a == 1", "'{' is not known here"),
        ("input.stops >", "no condition in CEL"),
        ("", "no condition in CEL"),
        ("(" * 200 + "true" + ")" * 200, "no condition in CEL"),
        ("unit == '" + "x" * 4096 + "'", "4106 characters; 4096 are allowed"),
    ],
)
def test_what_is_refused(text: str, words: str) -> None:
    with pytest.raises(Usage) as refused:
        Conditions([text], SIGNATURE)
    assert words in refused.value.message


def test_the_first_counts_and_any_row_will_do() -> None:
    texts = ("input.distance < 100.0", "input.carrier == 'AA'", "unit == 'N17'")
    assert first(*texts) == 2
    assert first(*texts, rows=3, carrier=["UA", "UA", "AA"]) == 1
    assert first(*texts, rows=3, carrier=["AA", "UA", "AA"], distance=[200.0, 300.0, 1.0]) == 0
    assert first(*texts, unit="N18") is None
    assert first() is None


def test_what_cannot_be_evaluated_does_not_hold_and_is_counted() -> None:
    rules = (
        Rule("warm", "input.temp > 3.0", "refuse", "too warm"),
        Rule("odd", "10 / input.stops > 1", "use", arm="challenger"),
        Rule("all", "true", "fallback"),
    )
    compiled = compile_rules(rules, SIGNATURE, strict=True)
    assert compiled.decide([[1.0], [NAN], [0], ["UA"], [NOON], [True]], 1, "N17", NOON) == rules[2]
    assert compiled.errors == {"warm": 1, "odd": 1, "all": 0}
    assert compiled.decide([[1.0] * 2, [NAN, 4.0], [0] * 2, ["UA"] * 2, [NOON] * 2, [True] * 2], 2, "", 0) == rules[0]
    assert compiled.errors == {"warm": 2, "odd": 2, "all": 0}
    assert compile_rules((), SIGNATURE, strict=True).decide([], 1, "N17", NOON) is None


def test_rules_that_take_too_long_for_all_rows_decide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_rules, "SECONDS", 0.0)
    rules = (Rule("low", "input.stops < 3", "refuse", "low"), Rule("warm", "input.stops > 3", "fallback"))
    compiled = compile_rules(rules, SIGNATURE, strict=True)
    assert compiled.decide([[1.0], [NAN], [4], ["UA"], [NOON], [True]], 1, "N17", NOON) == rules[1]
    assert compiled.decide([[1.0] * 2, [NAN] * 2, [2, 4], ["UA"] * 2, [NOON] * 2, [True] * 2], 2, "", 0) == rules[0]
    with pytest.raises(Undecided, match="looked at 1 of 3 rows: send fewer"):  # a later row may be low
        compiled.decide([[1.0] * 3, [NAN] * 3, [4, 4, 2], ["UA"] * 3, [NOON] * 3, [True] * 3], 3, "", 0)
    assert first("input.stops > 3", rows=3, stops=[1, 2, 4]) == 0


def test_a_version_that_lacks_an_input_obeys_the_other_rules() -> None:
    rules = (Rule("new", "input.humidity > 3.0", "refuse", "damp"), Rule("all", "true", "fallback"))
    with pytest.raises(Usage, match="humidity"):
        compile_rules(rules, SIGNATURE, strict=True)
    kept = compile_rules(rules, SIGNATURE, strict=False)
    assert kept.decide([[1.0], [1.0], [0], ["UA"], [NOON], [True]], 1, "N17", NOON) == rules[1]
    assert kept.errors == {"all": 0}


@pytest.mark.parametrize(("us", "late"), [(-(2**63) + 1, False), (2**63 - 1, True)])
def test_times_beyond_the_calendar_are_before_or_after_all_others(us: int, late: bool) -> None:
    assert (first("input.at > time", at=[us]) == 0) == late
    assert (first("time > input.at", event=us) == 0) == late


def test_a_gateway_without_rules_pays_nothing_and_one_with_rules_no_command_line() -> None:
    code = (
        "import sys; from interlock.gateway.rules import compile_rules; from interlock.registry.routes import Rule;"
        "from interlock.model.signature import Signature; s = Signature('regression', ());"
        "compile_rules((), s, strict=True).decide([], 1, '', 0); print('cel.cel' in sys.modules);"
        "compile_rules((Rule('a', 'true', 'fallback'),), s, strict=True); print('typer' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
