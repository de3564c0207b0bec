"""The environment pins; the most specific variable wins."""

from __future__ import annotations

import pytest

from interlock.core.errors import Misconfigured
from interlock.gateway.parameters import effective, pins
from interlock.registry.routes import Parameters


def test_the_most_specific_variable_wins() -> None:
    environment = {
        "THRESHOLD": "0.1",
        "INTERLOCK_PARAM__THRESHOLD": "0.2",
        "INTERLOCK_PARAM__FLIGHT_DELAY__THRESHOLD": "0.3",
        "INTERLOCK_PARAM__OTHER__RETRY": "4",
        "ACTIVATE": "False",
    }
    mine = pins("flight-delay", environment)
    assert mine == {"THRESHOLD": ("INTERLOCK_PARAM__FLIGHT_DELAY__THRESHOLD", "0.3"), "ACTIVATE": ("ACTIVATE", "False")}
    values = effective(Parameters(threshold=0.9, retry=2), mine)
    assert (values.threshold, values.activate, values.retry) == (0.3, False, 2)
    assert pins("other", environment)["RETRY"] == ("INTERLOCK_PARAM__OTHER__RETRY", "4")


def test_text_parameters_stay_text_and_json_ones_are_read() -> None:
    mine = {"ACTIVE_MODEL": ("ACTIVE_MODEL", "2"), "FALLBACK": ("FALLBACK", '{"score": 0.5}')}
    values = effective(Parameters(), mine)
    assert (values.active_model, values.fallback) == ("2", {"score": 0.5})


@pytest.mark.parametrize(
    ("name", "text"), [("THRESHOLD", "high"), ("ACTIVATE", "maybe"), ("RETRY", "-1"), ("TIMEOUT_SECOND", "0")]
)
def test_nonsense_is_refused_and_names_the_variable(name: str, text: str) -> None:
    with pytest.raises(Misconfigured, match=f"MY_{name}"):
        effective(Parameters(), {name: (f"MY_{name}", text)})
