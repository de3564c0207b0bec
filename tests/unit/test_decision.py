from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from interlock.experiments.aggregates import Sums, mean_sums, sums_of
from interlock.experiments.decision import Decision, Metric, Policy, decide
from interlock.experiments.samples import SampleRatio, sample_ratio

BRIER = Metric(name="brier", kind="ratio", numerator="loss", denominator="rows", direction="lower", role="success")
LOSS = Metric(name="loss", kind="mean", numerator="loss", direction="lower", role="guardrail", margin=0.05)
POLICY = Policy(
    metrics=(BRIER, LOSS), expected_units=2000, min_units=200, minimum_runtime_s=3600, maximum_runtime_s=36_000
)
EVEN = sample_ratio({"champion": 1000, "challenger": 1000}, {"champion": 1, "challenger": 1})


def arm(n: int = 1000, *, brier: float = 0.2, loss: float = 0.5, spread: float = 0.1) -> dict[str, Sums]:
    """An arm with exactly these means, and exactly this standard deviation between units."""
    noise = np.where(np.arange(n) % 2, spread, -spread)
    return {"brier": sums_of(brier + noise, np.ones(n)), "loss": sums_of(loss + noise)}


def decided(
    treatment: dict[str, Sums],
    control: dict[str, Sums] | None = None,
    elapsed_s: float = 7200,
    ratio: SampleRatio = EVEN,
    policy: Policy = POLICY,
    treatments: int = 1,
) -> Decision:
    control = arm() if control is None else control
    return decide(policy, control, treatment, sample_ratio=ratio, elapsed_s=elapsed_s, treatments=treatments)


def states(decision: Decision) -> dict[str, str]:
    return {reading.metric.name: reading.state for reading in decision.readings}


def test_a_better_challenger_with_harmless_guardrails_ships() -> None:
    found = decided(arm(brier=0.17))
    assert (found.verdict, states(found)) == ("SHIP", {"brier": "better", "loss": "harmless"})
    assert found.reasons == ("brier is better than control",)


def test_the_direction_decides_what_is_better() -> None:
    higher = Metric(name="brier", kind="mean", numerator="x", direction="higher", role="success")
    policy = msgspec.structs.replace(POLICY, metrics=(higher,))
    assert decided(arm(brier=0.23), policy=policy).verdict == "SHIP"
    assert states(decided(arm(brier=0.17), policy=policy)) == {"brier": "harmful"}


def test_a_mismatch_blocks_even_a_rollback() -> None:
    skewed = sample_ratio({"champion": 1100, "challenger": 900}, {"champion": 1, "challenger": 1})
    found = decided(arm(loss=0.9), ratio=skewed)
    assert (found.verdict, found.readings) == ("INVALID", ())
    assert "sample-ratio mismatch" in found.reasons[0]
    stray = sample_ratio({"champion": 1000, "old": 3}, {"champion": 1, "old": 0})
    assert decided(arm(), ratio=stray).reasons == ("3 units in arms of weight 0",)


def test_no_data_or_a_metric_that_one_arm_lacks_is_invalid() -> None:
    assert decided({}).reasons == ("no data in challenger",)
    assert decided({"brier": arm()["brier"]}).reasons == ("metric 'loss' is missing in challenger",)
    zero = {**arm(), "brier": sums_of(np.ones(500), np.zeros(500))}
    assert decided(arm(), control=zero).reasons == ("metric 'brier' is missing in champion",)


def test_a_harmful_guardrail_rolls_back_before_anything_else() -> None:
    harmed = arm(brier=0.17, loss=0.58)
    assert decided(harmed, elapsed_s=60).verdict == "ROLLBACK"
    assert decided(harmed, elapsed_s=99_999).verdict == "ROLLBACK"
    assert decided(harmed).reasons == ("loss is worse than control by more than its margin",)


def test_a_guardrail_within_its_margin_is_no_harm_although_it_is_worse() -> None:
    """1 % worse for sure (interval .4 % to 1.6 %), 5 % allowed."""
    control, treatment = arm(50_000, brier=0.2, loss=0.5), arm(50_000, brier=0.17, loss=0.505)
    found = decided(treatment, control)
    assert (found.verdict, states(found)["loss"]) == ("SHIP", "harmless")
    reading = found.readings[1]
    assert reading.interval is not None
    assert reading.relative is not None
    assert reading.interval.low > 0
    assert 0 < reading.relative.low < 0.01 < reading.relative.high < 0.05


def test_a_guardrail_says_nothing_before_100_units() -> None:
    found = decided(arm(99, loss=0.9), arm(99))
    assert (found.verdict, states(found)) == ("CONTINUE", {"brier": "early", "loss": "early"})
    assert decided(arm(100, loss=0.9), arm(100)).verdict == "ROLLBACK"


def test_it_goes_on_until_the_minimum_of_units_and_time() -> None:
    few = decided(arm(150, brier=0.1), arm(180))
    assert (few.verdict, few.units_needed) == ("CONTINUE", 100)
    assert few.reasons == ("150 units in the smaller arm, the minimum is 200",)
    soon = decided(arm(brier=0.1), elapsed_s=3599)
    assert (soon.verdict, soon.units_needed, soon.reasons) == ("CONTINUE", None, ("ran 3599 s, the minimum is 3600 s",))
    assert decided(arm(brier=0.1), elapsed_s=3600).verdict == "SHIP"


def test_an_open_result_continues_with_the_units_that_it_would_take() -> None:
    control, treatment = arm(400), arm(400, brier=0.185)
    found = decided(treatment, control)
    assert (found.verdict, states(found)["brier"]) == ("CONTINUE", "open")
    assert found.units_needed is not None
    enough = 400 + found.units_needed // 2
    assert decided(arm(enough, brier=0.185), arm(enough)).verdict == "SHIP"
    almost = 400 + round(found.units_needed / 2 * 0.8)
    assert decided(arm(almost, brier=0.185), arm(almost)).verdict == "CONTINUE"


def test_an_effect_that_leads_nowhere_needs_no_number_of_units() -> None:
    assert decided(arm(brier=0.2)).units_needed is None
    assert decided(arm(brier=0.21)).units_needed is None


def test_at_the_maximum_runtime_the_champion_stays() -> None:
    found = decided(arm(brier=0.199), elapsed_s=36_000)
    assert found.verdict == "INCONCLUSIVE"
    assert "keep the champion" in found.reasons[0]
    few = arm(150, brier=0.1, spread=0.03), arm(150, spread=0.03)
    assert states(decided(*few)) == {"brier": "better", "loss": "harmless"}
    assert decided(*few, elapsed_s=36_000).verdict == "INCONCLUSIVE"
    assert decided(arm(brier=0.17), elapsed_s=36_000).verdict == "SHIP"


def test_a_win_with_an_undecided_guardrail_does_not_ship() -> None:
    metrics = (BRIER, msgspec.structs.replace(LOSS, margin=0.001))
    policy = msgspec.structs.replace(POLICY, metrics=metrics)
    found = decided(arm(brier=0.17), policy=policy)
    assert (found.verdict, states(found)) == ("CONTINUE", {"brier": "better", "loss": "open"})


def test_do_no_harm_ships_on_non_inferiority_only_when_the_policy_says_so() -> None:
    metrics = (msgspec.structs.replace(BRIER, margin=0.1), LOSS)
    policy = msgspec.structs.replace(POLICY, metrics=metrics)
    assert decided(arm(), policy=policy).verdict == "CONTINUE"
    harmless = msgspec.structs.replace(policy, harmless=True)
    found = decided(arm(), policy=harmless)
    assert (found.verdict, states(found)["brier"]) == ("SHIP", "harmless")
    assert decided(arm(brier=0.215), policy=harmless).verdict == "CONTINUE"


def test_alpha_is_divided_over_success_metrics_and_arms_but_not_over_guardrails() -> None:
    second = msgspec.structs.replace(BRIER, name="second")
    policy = msgspec.structs.replace(POLICY, metrics=(BRIER, second, LOSS))
    sums = {**arm(), "second": arm()["brier"]}
    found = decided(sums, sums, policy=policy, treatments=3)
    alphas = [reading.interval.alpha for reading in found.readings if reading.interval is not None]
    assert alphas == pytest.approx([0.05 / 6, 0.05 / 6, 0.05])


def test_rates_wait_for_25_successes_and_failures() -> None:
    rate = Metric(name="brier", kind="proportion", numerator="clicked", direction="higher", role="success")
    policy = msgspec.structs.replace(POLICY, metrics=(rate,))
    control, rare = {"brier": mean_sums(1000, 300, 300)}, {"brier": mean_sums(1000, 24, 24)}
    assert states(decided(rare, control, policy=policy)) == {"brier": "early"}
    assert decided({"brier": mean_sums(1000, 400, 400)}, control, policy=policy).verdict == "SHIP"


def test_arms_without_any_variation_are_undecided_not_an_error() -> None:
    found = decided(arm(spread=0.0), arm(spread=0.0))
    assert found.verdict == "CONTINUE"


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": (LOSS,)},
        {"metrics": (BRIER, BRIER)},
        {"alpha": 0.0},
        {"expected_units": 0},
        {"maximum_runtime_s": 60.0},
    ],
)
def test_a_policy_that_cannot_decide_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"polic"):
        msgspec.structs.replace(POLICY, **change)


def test_a_margin_is_a_fraction() -> None:
    with pytest.raises(ValueError, match="margin 5"):
        msgspec.structs.replace(LOSS, margin=5.0)


def test_policy_and_decision_go_through_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(POLICY), type=Policy) == POLICY
    found = decided(arm(brier=0.17))
    assert msgspec.json.decode(msgspec.json.encode(found), type=Decision) == found
