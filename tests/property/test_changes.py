"""A change that is called free never lets a request be answered by a model otherwise than before."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from interlock.gateway.parameters import NAMES
from interlock.registry.routes import CHAMPION, Arm, ExperimentRef, Parameters, RouteDocument, Rule
from interlock.release.changes import FREE, tightens

ARMS = tuple(
    Arm(name, "m", number, f"sha256:{number}", "", ()) for number, name in enumerate((CHAMPION, "challenger"), 1)
)
replace = msgspec.structs.replace
rules = st.builds(
    Rule,
    name=st.sampled_from(["a", "b", "c"]),
    when=st.just("true"),
    then=st.sampled_from(["refuse", "answer", "use", "fallback"]),
    arm=st.sampled_from([CHAMPION, "challenger"]),
)
parameters = st.builds(
    Parameters,
    activate=st.booleans(),
    active_model=st.sampled_from(["", CHAMPION, "2"]),
    timeout_second=st.sampled_from([1.0, 2.0]),
    retry=st.sampled_from([0, 1]),
    threshold=st.sampled_from([0.4, 0.5]),
    fallback=st.sampled_from(["error", {"score": 0.1, "label": False}]),
    max_concurrency=st.sampled_from([10, 1000]),
    on_revoked=st.sampled_from(["standby", "fallback"]),
)
changes: Any = st.one_of(
    parameters.map(lambda new: lambda route: replace(route, parameters=new)),
    rules.map(lambda rule: lambda route: replace(route, rules=(*route.rules, rule))),
    rules.map(lambda rule: lambda route: replace(route, rules=(rule, *route.rules))),
    st.integers(0, 2).map(lambda at: lambda route: replace(route, rules=route.rules[:at] + route.rules[at + 1 :])),
    st.tuples(st.sampled_from(["activate", "active_model", "threshold", "on_revoked"]), parameters).map(
        lambda one: (
            lambda route: replace(route, parameters=replace(route.parameters, **{one[0]: getattr(one[1], one[0])}))
        )
    ),
)
REQUESTS = [
    (set(holds), score, bucket, revoked)
    for holds in ("", "a", "b", "c", "ab", "ac", "bc", "abc")
    for score in (0.3, 0.45, 0.7)
    for bucket in (0, 1)
    for revoked in (False, True)
]
"""Which rules hold for it, the model's score, whose unit it is, whether the champion has lost its approval."""


def document(values: Parameters, kept: list[Rule]) -> RouteDocument:
    distinct = tuple({rule.name: rule for rule in kept}.values())
    return RouteDocument(1, "e", 1, ARMS, ExperimentRef("s"), values, "", "", "", None, rules=distinct)


def answered(route: RouteDocument, request: tuple[set[str], float, int, bool]) -> tuple[str, bool] | None:
    """Which model answers and what, told in the model's own words; None: no model does."""
    holds, score, bucket, revoked = request
    values = route.parameters
    if not values.activate:
        return None
    arm = next((one for one in ARMS if values.active_model and one.is_named(values.active_model)), ARMS[bucket])
    rule = next((rule for rule in route.rules if rule.name in holds), None)
    if rule is not None:
        if rule.then != "use":
            return None
        arm = route.arm(rule.arm)
    if revoked and arm.name == CHAMPION:
        return None if values.on_revoked == "fallback" else ("standby", score >= values.threshold)
    return arm.name, score >= values.threshold


@settings(max_examples=500)
@given(parameters, st.lists(rules, max_size=2), changes)
def test_what_is_free_only_takes_answers_away(values: Parameters, kept: list[Rule], change: Any) -> None:
    before = document(values, kept)
    after = change(before)
    assume(len({rule.name for rule in after.rules}) == len(after.rules))
    free = tightens(before, after)
    event(f"free: {free}")
    if free:
        for request in REQUESTS:
            assert answered(after, request) in (None, answered(before, request))


@pytest.mark.parametrize(
    ("changed", "free"),
    [
        ({"ACTIVATE": False}, True), ({"ON_REVOKED": "fallback"}, True), ({"ON_EXPIRY": "stop"}, True),
        ({"TIMEOUT_SECOND": 9.0, "RETRY": 3, "MAX_CONCURRENCY": 7}, True), ({"THRESHOLD": 0.6}, False),
        ({"FALLBACK": {"value": 1}}, False), ({"ACTIVE_MODEL": "challenger"}, False),
        ({"ACTIVATE": False, "THRESHOLD": 0.6}, False),
    ],
)  # fmt: skip
def test_the_table(changed: dict[str, Any], free: bool) -> None:
    before = document(Parameters(), [])
    after = replace(before, parameters=msgspec.convert(msgspec.to_builtins(Parameters()) | changed, Parameters))
    assert tightens(before, after) is free
    if free and set(changed) & {"ACTIVATE", "ON_REVOKED", "ON_EXPIRY"}:
        assert not tightens(after, before)


def test_every_parameter_is_in_the_table() -> None:
    assert tuple(sorted(FREE)) == tuple(sorted(NAMES))
