"""The one source of time. UTC everywhere; functions that need time take a `Clock`."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the time. Implementations never go backwards by more than the system clock does."""

    def now(self) -> datetime:
        """The current time, aware, in UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The current time, aware, in UTC."""
        return datetime.now(UTC)


class FixedClock:
    """A clock that stands where it was put: for replays and tests."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        """The time it was set to."""
        return self.at


def now_us() -> int:
    """Microseconds since the epoch, for records on the hot path."""
    return time.time_ns() // 1000


def to_us(at: datetime) -> int:
    """Whole microseconds since the epoch of an aware time, without a float in between."""
    delta = at - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


FIRST_US, LAST_US = (to_us(end.replace(tzinfo=UTC)) for end in (datetime.min, datetime.max))
"""The years 1 to 9999: beyond them no time has a text, and some zones have no local time."""


def from_us(us: int) -> datetime:
    """The aware UTC time of microseconds since the epoch."""
    return datetime.fromtimestamp(us // 1_000_000, UTC).replace(microsecond=us % 1_000_000)


def parse_time(text: str) -> datetime:
    """An ISO 8601 time with an offset (or `Z`) as aware UTC.

    Raises:
        ValueError: the text is no time, has no offset, or is outside the years 1 to 9999 in UTC.
    """
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"time without an offset: {text!r}")
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"time outside the years 1 to 9999: {text!r}") from None


def parse_span(text: str) -> timedelta | None:
    """`30s`, `15m`, `1h`, `2d`; None if it is no such text."""
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    number, unit = text[:-1], text[-1:]
    if not number.isdecimal() or unit not in units or len(number) > 6:
        return None
    return timedelta(**{units[unit]: int(number)})


def iso(at: datetime) -> str:
    """The time as ISO 8601 in UTC with microseconds and `Z`: one form everywhere, so that it can be signed."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
