from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from interlock.monitoring.drift import Check, Verdict
from interlock.monitoring.states import OPEN, Acked, Alert, Event, Observed, Resolved, Silenced, State, Step, step

START = datetime(2013, 7, 1, tzinfo=UTC)
CALM = Alert(endpoint="flight-delay", monitor="drift", slice="origin=JFK")


def hour(n: float) -> datetime:
    return START + timedelta(hours=n)


def seen(n: int, value: float, verdict: Verdict | None = None) -> Observed:
    """The window of hour n, judged at its end, against a threshold of .2."""
    found: Verdict = verdict or ("alert" if value > 0.2 else "ok")
    return Observed(hour(n + 1), hour(n), Check(value=value, threshold=0.2, n=1000, verdict=found, detail="psi"))


def after(*events: Event, alert: Alert = CALM) -> list[Step]:
    steps = []
    for event in events:
        steps.append(step(alert, event))
        alert = steps[-1].alert
    return steps


def states(*events: Event, alert: Alert = CALM) -> list[State]:
    return [taken.alert.state for taken in after(*events, alert=alert)]


def test_an_alert_lives_from_pending_to_resolved() -> None:
    events = (seen(0, 0.3), seen(1, 0.4), Acked("olga"), seen(2, 0.5), seen(3, 0.1), seen(4, 0.1))
    assert states(*events) == ["PENDING", "FIRING", "ACKED", "ACKED", "RESOLVED", "RESOLVED"]
    assert [taken.notify for taken in after(*events)] == [False, True, False, False, True, False]
    fired = after(*events)[2].alert
    assert (fired.since, fired.window_start, fired.changed_by) == (hour(0), hour(1), "olga")


def test_one_window_alone_tells_nobody() -> None:
    events = (seen(0, 0.3), seen(1, 0.1), seen(2, 0.3), seen(3, 0.19))
    assert states(*events) == ["PENDING", "OK", "PENDING", "OK"]
    assert not any(taken.notify for taken in after(*events))


def test_the_same_window_judged_twice_is_one_window() -> None:
    assert states(seen(0, 0.3), seen(0, 0.3), seen(0, 0.4)) == ["PENDING"] * 3
    late = after(seen(5, 0.3), seen(4, 0.3))[-1].alert
    assert (late.state, late.window_start) == ("PENDING", hour(5))


def test_it_ends_below_80_percent_of_the_threshold_only() -> None:
    events = (seen(0, 0.3), seen(1, 0.3), seen(2, 0.19), seen(3, 0.161), seen(4, 0.159))
    assert states(*events)[2:] == ["FIRING", "FIRING", "RESOLVED"]
    assert [taken.notify for taken in after(*events)] == [False, True, False, False, True]


def test_a_window_that_cannot_tell_changes_no_state() -> None:
    for events in ((seen(0, 0.3),), (seen(0, 0.3), seen(1, 0.3))):
        before = states(*events)[-1]
        assert states(*events, seen(2, 0.01, "too small"))[-1] == before
    assert states(seen(0, 0.3), seen(1, 0.9, "too small"), seen(2, 0.3))[-1] == "FIRING"


def test_a_warning_is_no_breach() -> None:
    assert states(seen(0, 0.15, "warn"), seen(1, 0.15, "warn")) == ["OK", "OK"]


def test_a_resolved_alert_opens_again_as_a_new_one() -> None:
    events = (seen(0, 0.3), seen(1, 0.3), Acked("olga"), seen(2, 0.1), seen(3, 0.3))
    again = after(*events)[-1].alert
    assert (again.state, again.since, again.changed_by) == ("PENDING", hour(3), "")


def test_a_person_resolves_whatever_is_open_and_nothing_else() -> None:
    events = (seen(0, 0.3), seen(1, 0.3), Acked("olga"))
    for count in range(1, 4):
        assert states(*events[:count], Resolved("olga"))[-1] == "RESOLVED"
    assert states(Resolved("olga")) == ["OK"]
    assert states(Acked("olga"), seen(0, 0.3), Acked("olga")) == ["OK", "PENDING", "PENDING"]


def test_a_silence_tells_nobody_and_ends_by_itself() -> None:
    events = (Silenced(hour(3.5)), seen(0, 0.3), seen(1, 0.3), seen(2, 0.3), seen(3, 0.3), seen(4, 0.3))
    steps = after(*events)
    assert [taken.notify for taken in steps] == [False, False, False, False, True, False]
    assert steps[3].alert.state == "FIRING"
    assert steps[-1].alert.silenced_until is None


def test_a_silence_ends_at_its_very_moment() -> None:
    events = (Silenced(hour(2)), seen(0, 0.3), seen(1, 0.3))
    assert after(*events)[-1].notify


def test_what_begins_and_ends_in_a_silence_is_never_told() -> None:
    events = (Silenced(hour(9)), seen(0, 0.3), seen(1, 0.3), seen(2, 0.1))
    assert states(*events)[-1] == "RESOLVED"
    assert not any(taken.notify for taken in after(*events))


def test_an_acknowledged_alert_is_not_told_again_after_a_silence() -> None:
    events = (seen(0, 0.3), seen(1, 0.3), Acked("olga"), Silenced(hour(3)), seen(2, 0.3), seen(3, 0.3))
    assert [taken.notify for taken in after(*events)] == [False, True, False, False, False, False]


@pytest.mark.parametrize(
    ("state", "is_open"), [("OK", False), ("PENDING", True), ("FIRING", True), ("ACKED", True), ("RESOLVED", False)]
)
def test_which_states_are_open(state: State, is_open: bool) -> None:
    assert (state in OPEN) is is_open
