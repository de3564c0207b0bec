"""An experiment from the log to the verdict: real routes, a real warehouse, rows as the recorder writes them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from tests.insight import E, Insight, judged

from interlock.core.assignment import bucket, owner_table
from interlock.core.errors import InvalidData, NotFound
from interlock.core.settings import ExperimentSettings, MetricSettings
from interlock.experiments.analysis import Analysis, analyse, check_metrics
from interlock.experiments.decision import Policy
from interlock.experiments.phases import phases_of
from interlock.experiments.records import policy_of
from interlock.predlog.record import Prediction
from interlock.registry.routes import ExperimentRef, RouteDocument

START = datetime(2013, 7, 1, tzinfo=UTC)
UNITS = [f"N{number}é" for number in range(2400)]
SETTINGS = ExperimentSettings(
    metrics=(
        MetricSettings("brier", "(out_score - label) ** 2"),
        MetricSettings("late", "label", direction="lower", role="guardrail", margin=0.5),
    ),
    expected_units=2000,
    min_units=200,
)
POLICY = policy_of(SETTINGS)


def reference(phase: int = 1, salt: str = "salt-é", id: str = "exp") -> ExperimentRef:
    return ExperimentRef(salt, phase, id, "tailnum")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Insight, list[str]]]:
    house = Insight(tmp_path_factory.mktemp("experiment"))
    yield house, ["sha256:" + str(number) * 64 for number in (1, 2, 3)]
    house.close()


class Lab:
    """One experiment of its own in the shared warehouse."""

    number = 0

    def __init__(self, house: Insight, packages: list[str]) -> None:
        Lab.number += 1
        self.id, self.house, self.packages = f"exp-{Lab.number}", house, packages
        self.routes: list[RouteDocument] = []

    def route(self, champion: int, phase: int = 1, salt: str = "salt-é") -> RouteDocument:
        ranges = {"champion": ((0, champion),), "challenger": ((champion, 10_000),)}
        shares = {name: (self.packages[i], high - low) for i, (name, ((low, high),)) in enumerate(ranges.items())}
        made = self.house.route(shares, experiment=reference(phase, salt, self.id))
        self.routes.append(made)
        return made

    def log(self, predictions: list[Prediction], challenger: float = 0.3, champion: float = 0.3) -> list[Prediction]:
        noise = {"champion": champion, "challenger": challenger}
        answered, labels = judged(predictions, lambda one: noise[one.arm], seed=Lab.number)
        self.house.record(answered, labels)
        return answered

    def analyse(self, policy: Policy = POLICY, arm: str = "challenger") -> Analysis:
        phases = phases_of(self.routes, self.id)
        return analyse(self.house.warehouse, E, self.id, policy, phases, arm)


@pytest.fixture
def lab(built: tuple[Insight, list[str]]) -> Lab:
    return Lab(*built)


def interval(found: Analysis) -> tuple[float, float, float]:
    """Never null where both arms have data."""
    assert found.low is not None
    assert found.high is not None
    assert found.effect is not None
    return found.low, found.effect, found.high


def brier(rows: list[Prediction], labels: dict[str, float]) -> float:
    return math.fsum((one.outputs[0][0] - labels[one.prediction_id]) ** 2 for one in rows) / len(rows)


def rounded(value: Any) -> Any:
    """With nine decimals: sums of floats differ in the last ones from query to query."""
    match value:
        case float():
            return round(value, 9)
        case dict():
            return {name: rounded(one) for name, one in value.items()}
        case list() | tuple():
            return [rounded(one) for one in value]
        case Analysis():
            return rounded(msgspec.to_builtins(value))
    return value


def test_a_better_challenger_ships(lab: Lab) -> None:
    route = lab.route(5000)
    asked = [one for hour in range(2) for one in lab.house.ask(route, UNITS, START + timedelta(hours=hour))]
    lab.log(asked, challenger=0.05)
    found = lab.analyse()
    assert found.verdict == "SHIP", found
    low, effect, high = interval(found)
    assert low < effect < high < 0
    assert 0.001 < found.srm_p <= 1
    assert found.srm_units == {
        arm: len({one.unit_id for one in asked if one.arm == arm}) for arm in ("champion", "challenger")
    }
    assert (found.units, found.several_arms, found.moved) == (2400, 0, 0)
    assert found.elapsed_s == pytest.approx(3600 + len(UNITS) - 1)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Analysis) == found


def test_the_numbers_are_those_that_anybody_can_add_up(lab: Lab) -> None:
    route = lab.route(7000)
    asked = [*lab.house.ask(route, UNITS, START), *lab.house.ask(route, UNITS[:900], START + timedelta(hours=1))]
    answered, labels = judged(asked, lambda one: 0.2, seed=1)
    lab.house.record(answered, labels)
    found = {one.name: one for one in lab.analyse().metrics}
    for arm in ("champion", "challenger"):
        mine = [one for one in answered if one.arm == arm]
        assert getattr(found["brier"], arm) == pytest.approx(brier(mine, labels))
        assert getattr(found["late"], arm) == pytest.approx(sum(labels[one.prediction_id] for one in mine) / len(mine))
        assert getattr(found["brier"], f"n_{arm}") == len({one.unit_id for one in mine})


def test_equal_versions_go_on_and_end_with_the_champion(lab: Lab) -> None:
    lab.log(lab.house.ask(lab.route(5000), UNITS, START))
    found = lab.analyse()
    assert found.verdict == "CONTINUE"
    low, _, high = interval(found)
    assert low < 0 < high
    over = msgspec.structs.replace(POLICY, maximum_runtime_s=1800.0)
    assert lab.analyse(over).verdict == "INCONCLUSIVE"


def test_a_harmful_challenger_is_rolled_back(lab: Lab) -> None:
    lab.log(lab.house.ask(lab.route(5000), UNITS, START), challenger=0.8, champion=0.02)
    guarded = MetricSettings("brier", "(out_score - label) ** 2", role="guardrail", margin=0.02)
    late = MetricSettings("late", "label")
    policy = policy_of(msgspec.structs.replace(SETTINGS, metrics=(late, guarded)))
    assert lab.analyse(policy).verdict == "ROLLBACK"


def test_a_broken_split_is_invalid_and_still_has_its_numbers(lab: Lab) -> None:
    asked = lab.house.ask(lab.route(5000), UNITS, START)
    lab.log([one for one in asked if one.arm == "champion" or bucket("lost", one.unit_id) > 2500], challenger=0.05)
    found = lab.analyse()
    assert (found.verdict, found.srm_p < 0.001) == ("INVALID", True)
    interval(found)
    assert any("sample-ratio" in reason for reason in found.reasons)


def test_only_rows_of_the_experiment_count(lab: Lab) -> None:
    route = lab.route(5000)
    counted = lab.log(lab.house.ask(route, UNITS, START))
    before = lab.analyse()
    later = START + timedelta(hours=2)
    strangers: list[dict[str, Any]] = [
        {"experiment": ""},
        {"experiment": "another"},
        {"unit_source": "request"},
        {"role": "shadow"},
        {"route_revision": route.revision + 1},
    ]
    asked = [one for fixed in strangers for one in lab.house.ask(route, UNITS[:50], later, **fixed)]
    lab.log(asked, challenger=0.9, champion=0.0)
    assert rounded(lab.analyse()) == rounded(before)
    failed = lab.house.ask(route, UNITS[:50], later, outcome="timeout", outputs=[])
    unlabelled = lab.house.ask(route, ["new-1", "new-2"], later)
    lab.house.record([*failed, *unlabelled])
    found = lab.analyse()
    assert rounded(found)["metrics"] == rounded(before)["metrics"]
    assert found.units == len({one.unit_id for one in counted}) + 2


def test_phases_of_one_salt_are_compared_within_themselves(lab: Lab) -> None:
    """Months differ far more than the arms; the share is raised between them. Pooling rows would find an effect."""
    first, second = lab.route(8000), lab.route(5000, phase=2)
    both = UNITS[:1800]
    asked = lab.house.ask(first, both, START)
    again = lab.house.ask(second, [*both, *UNITS[1800:]], START + timedelta(days=40))
    answered, labels = judged([*asked, *again], lambda one: 0.1 if one.phase == 1 else 0.9, seed=3)
    lab.house.record(answered, labels)
    found = lab.analyse()

    owners = [owner_table({arm.name: arm.ranges for arm in route.arms}) for route in (first, second)]
    moved = {unit for unit in both if len({table[bucket("salt-é", unit)] for table in owners}) == 2}
    assert moved
    assert (found.moved, found.several_arms, found.units) == (len(moved), len(moved), len(UNITS))
    shown = {(one.phase, one.arm): (one.units, one.moved) for one in found.exposures}
    kept = [sum(owners[0][bucket("salt-é", unit)] == arm for unit in both) for arm in ("champion", "challenger")]
    assert shown[1, "champion"] == (kept[0], len(moved))
    assert shown[1, "challenger"] == (kept[1], 0)
    assert sum(units for (phase, _), (units, _) in shown.items() if phase == 2) == len(UNITS) - len(both)
    assert found.srm_p > 0.001
    low, effect, high = interval(found)
    assert low < 0 < high
    result = found.metrics[0]
    assert (result.n_champion + result.n_challenger) == len(UNITS) - len(moved)

    pooled = {
        arm: brier([one for one in answered if one.arm == arm and one.unit_id not in moved], labels)
        for arm in ("champion", "challenger")
    }
    assert abs(effect) < abs(pooled["challenger"] - pooled["champion"])


def test_another_version_in_an_arm_ends_the_experiment(lab: Lab) -> None:
    route = lab.route(5000)
    lab.log(lab.house.ask(route, UNITS[:600], START))
    before = lab.analyse()
    swapped = lab.house.route(
        {"champion": (lab.packages[1], 5000), "challenger": (lab.packages[2], 5000)}, experiment=reference(2, id=lab.id)
    )
    lab.routes.append(swapped)
    lab.log(lab.house.ask(swapped, UNITS, START + timedelta(days=1)))
    assert rounded(lab.analyse()) == rounded(before)


def test_nothing_yet_is_invalid_with_a_reason(lab: Lab, built: tuple[Insight, list[str]]) -> None:
    route = lab.route(5000)
    found = lab.analyse()
    assert (found.verdict, found.effect, found.srm_p, found.units) == ("INVALID", None, 1.0, 0)
    assert "no data in champion" in found.reasons
    lab.log(lab.house.ask(route, UNITS[:40], START))
    few = lab.analyse()
    assert few.verdict == "CONTINUE"
    interval(few)
    assert few.metrics[0].state == "early"
    with pytest.raises(NotFound, match="no challenger challenger-2"):
        lab.analyse(arm="challenger-2")


def test_a_metric_that_the_warehouse_cannot_read_is_refused_before_the_start(lab: Lab) -> None:
    lab.log(lab.house.ask(lab.route(5000), UNITS[:5], START))
    check_metrics(lab.house.warehouse, E, POLICY)
    wrong = policy_of(msgspec.structs.replace(SETTINGS, metrics=(MetricSettings("brier", "out_scoer"),)))
    with pytest.raises(InvalidData, match="out_scoer"):
        check_metrics(lab.house.warehouse, E, wrong)
