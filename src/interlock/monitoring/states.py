"""The life of an alert: OK → PENDING → FIRING (two windows) → ACKED → RESOLVED, a pure function of state and event.

There is one `Alert` a (endpoint, monitor, slice), because it is keyed by them: a breach while it is open updates it. It
resolves only below 80 % of the threshold, so a value that wavers around the threshold does not flap.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, assert_never

from msgspec import Struct
from msgspec.structs import replace

from interlock.monitoring.drift import Check

State = Literal["OK", "PENDING", "FIRING", "ACKED", "RESOLVED"]
OPEN: tuple[State, ...] = ("PENDING", "FIRING", "ACKED")
HYSTERESIS = 0.8


class Alert(Struct, frozen=True, kw_only=True):
    """The state of one monitor on one slice ("" = all rows) of one endpoint.

    since: start of the window that opened it. window_start: of the latest window judged. changed_by: the person who
    last acknowledged or closed it. silenced_until: nobody is told before; the silence ends by itself.
    """

    endpoint: str
    monitor: str
    slice: str = ""
    state: State = "OK"
    since: datetime | None = None
    window_start: datetime | None = None
    check: Check | None = None
    changed_by: str = ""
    silenced_until: datetime | None = None


class Observed(Struct, frozen=True):
    """The check, made at `at`, of the window that began at `window_start`."""

    at: datetime
    window_start: datetime
    check: Check


class Acked(Struct, frozen=True):
    """A person has taken the firing alert on."""

    by: str


class Silenced(Struct, frozen=True):
    """Nobody is to be told until then."""

    until: datetime


class Resolved(Struct, frozen=True):
    """A person closes the open alert."""

    by: str


Event = Observed | Acked | Silenced | Resolved


class Step(Struct, frozen=True):
    """The alert after the event, and whether people are to be told of it now."""

    alert: Alert
    notify: bool = False


def step(alert: Alert, event: Event) -> Step:
    """What an event makes of an alert. What does not apply (an old window, an ack of calm) changes nothing."""
    match event:
        case Observed():
            return _observed(alert, event)
        case Acked(by):
            return Step(replace(alert, state="ACKED", changed_by=by) if alert.state == "FIRING" else alert)
        case Silenced(until):
            return Step(replace(alert, silenced_until=until))
        case Resolved(by):
            return Step(replace(alert, state="RESOLVED", changed_by=by) if alert.state in OPEN else alert)
        case _:
            assert_never(event)


def _observed(alert: Alert, event: Observed) -> Step:
    if alert.window_start is not None and event.window_start <= alert.window_start:
        return Step(alert)  # the same window judged twice is not two windows
    if event.check.verdict == "too small" or event.check.value is None:
        return Step(alert)  # neither a breach nor the end of one; the numbers of the last breach stay
    silence_ended = alert.silenced_until is not None and event.at >= alert.silenced_until
    after = replace(alert, state=_next(alert.state, event.check), window_start=event.window_start, check=event.check)
    if silence_ended:
        after = replace(after, silenced_until=None)
    if after.state == "PENDING" and alert.state != "PENDING":
        after = replace(after, since=event.window_start, changed_by="")
    changed = after.state != alert.state
    told = (after.state == "FIRING" and (changed or silence_ended)) or (after.state == "RESOLVED" and changed)
    return Step(after, notify=told and after.silenced_until is None)


def _next(state: State, check: Check) -> State:
    match state:
        case "OK" | "RESOLVED":
            return "PENDING" if check.verdict == "alert" else state
        case "PENDING":
            return "FIRING" if check.verdict == "alert" else "OK"
        case "FIRING" | "ACKED":
            calm = check.verdict != "alert" and (check.value or 0.0) < HYSTERESIS * check.threshold
            return "RESOLVED" if calm else state
        case _:
            assert_never(state)
