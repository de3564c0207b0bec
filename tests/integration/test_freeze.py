"""Freeze windows and the soak of a champion, where people release. Real packages, approvals and routes; only time is made up."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from tests.gate import Gate, refusals

from interlock.core.clock import FixedClock, SystemClock
from interlock.core.errors import Refused
from interlock.core.policy import Limits, Policy
from interlock.release.review import Terms, decide
from interlock.release.rollout import Rollout
from interlock.release.users import add_user, set_policy

E = "flight-delay"
NOW = SystemClock().now()
FRIDAY = (NOW + timedelta(days=4 - NOW.weekday() + 7)).replace(hour=0, minute=0, second=0, microsecond=0)
"""The Friday of next week, at midnight."""
WEEKEND = '[standard]\nfreeze = [{ since = "Fri 16:00", until = "Mon 06:00", reason = "nobody is there" }]\n'
SOAK = "[standard]\nsoak_hours = 24\n"


def at(gate: Gate, hours: float) -> Rollout:
    """Olga, so many hours after that Friday began."""
    return Rollout(gate.project, "olga", gate.people, FixedClock(FRIDAY + timedelta(hours=hours)))


def setting(gate: Gate, text: str) -> None:
    with gate.project.config.open("a") as config:
        config.write(text)


@pytest.fixture
def two(gate: Gate) -> tuple[str, str]:
    names = gate.version(1), gate.version(2)
    for name in names:
        gate.say(name)
    return names


def test_in_a_freeze_nothing_new_gets_traffic_and_every_way_back_is_open(gate: Gate, two: tuple[str, str]) -> None:
    (one, other), third = two, gate.version(3)
    gate.say(third)
    setting(gate, WEEKEND)
    with pytest.raises(Refused, match="nothing new is released from Fri 16:00 to Mon 06:00 UTC: nobody is there"):
        at(gate, 16).deploy(one, E, "champion")
    at(gate, 15.9).deploy(one, E, "champion")
    at(gate, 15.9).deploy(other, E, "challenger", buckets=1000)
    frozen = at(gate, 40)
    steps: tuple[Callable[[], object], ...] = (
        lambda: frozen.deploy(third, E, "champion"),
        lambda: frozen.traffic(E, {"champion": 8000, "challenger": 2000}),
        lambda: frozen.promote(E, "challenger"),
        lambda: frozen.change_parameters(E, {"ACTIVE_MODEL": "challenger"}),
    )
    for step in steps:
        with pytest.raises(Refused):
            step()
    assert len(refusals(gate)) == 5
    assert frozen.traffic(E, {"champion": 9500, "challenger": 500}).changed
    assert frozen.change_parameters(E, {"ACTIVATE": "false"}).changed
    assert frozen.change_parameters(E, {"ACTIVATE": "true"}).changed
    assert frozen.retire(E, "challenger").changed
    assert frozen.deploy(other, E, "shadow").changed
    assert frozen.retire(E, "shadow").changed
    assert at(gate, 78).deploy(other, E, "champion").changed
    assert at(gate, 7 * 24 + 20).roll_back(E).changed


def test_a_champion_soaks_before_the_next(gate: Gate, two: tuple[str, str]) -> None:
    one, other = two
    setting(gate, SOAK)
    assert at(gate, 0).deploy(one, E, "champion").changed
    assert at(gate, 1).change_parameters(E, {"RETRY": "3"}).changed  # does not begin it anew
    with pytest.raises(
        Refused, match=rf"{one} is champion of {E} since .* and soaks until {FRIDAY + timedelta(days=1):%Y-%m-%dT}"
    ):
        at(gate, 23).deploy(other, E, "challenger", buckets=1000)
    assert at(gate, 24).deploy(other, E, "champion").changed
    with pytest.raises(Refused, match="soaks until"):
        at(gate, 25).deploy(one, E, "challenger", buckets=1000)
    assert at(gate, 25).roll_back(E).changed


def test_an_override_passes_both(gate: Gate, two: tuple[str, str]) -> None:
    one, other = two
    add_user(gate.project, gate.people, "ann", "olga", ("operator", "admin"))
    set_policy(gate.project, gate.people, "olga", Policy({}, {"default": Limits(override_hours=8000)}), None)
    setting(gate, WEEKEND + "soak_hours = 24\n")
    at(gate, 10).deploy(one, E, "champion")
    config, text = gate.project.config, gate.project.config.read_text()
    config.write_text(text.replace(WEEKEND, "").replace("soak_hours = 24\n", ""))  # the evaluation here is a stub
    for by in ("rob", "olga"):
        said = Terms(override="the old one is wrong")
        decide(gate.project, gate.database, by, gate.people, other, "approve", "now", terms=said)
    config.write_text(text)
    assert at(gate, 20).deploy(other, E, "champion").changed
