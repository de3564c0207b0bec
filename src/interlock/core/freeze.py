"""Windows in which nothing new is released: once, or every week."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_WEEKLY = re.compile(rf"({'|'.join(DAYS)}) ([01]\d|2[0-3]):([0-5]\d)")


class FreezeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From `since` until before `until`, both as `Fri 16:00` (every week) or both as `2026-12-20` or `2026-12-20T18:00`."""

    since: str
    until: str
    zone: str = "UTC"
    """IANA zone of both; a time with an offset keeps its own."""
    reason: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no window, as ValueError, so that the place in the file is named."""
        start, end = _weekly(self.since), _weekly(self.until)
        if (start is None) != (end is None):
            raise ValueError(f"{self.since!r} and {self.until!r}: both every week, or both once")
        if start == end and (start is not None or self._once(self.since) >= self._once(self.until)):
            raise ValueError(f"{self.since!r} is not before {self.until!r}")
        self._zone()

    def holds(self, now: datetime) -> bool:
        """Whether `now` lies in it; a weekly one goes by the wall clock of its zone."""
        start, end = _weekly(self.since), _weekly(self.until)
        if start is None or end is None:
            return self._once(self.since) <= now < self._once(self.until)
        local = now.astimezone(self._zone())
        at = timedelta(local.weekday(), hours=local.hour, minutes=local.minute, seconds=local.second)
        return start <= at < end if start < end else not end <= at < start

    def __str__(self) -> str:
        """The window in words."""
        return f"{self.since} to {self.until} {self.zone}" + (f": {self.reason}" if self.reason else "")

    def _once(self, text: str) -> datetime:
        try:
            local = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{text!r} is no time: as in 2026-12-20T18:00, or Fri 16:00 for every week") from None
        return local if local.tzinfo else local.replace(tzinfo=self._zone())

    def _zone(self) -> ZoneInfo:
        try:
            return ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f"{self.zone!r} is no zone: as in Europe/Berlin") from None


def _weekly(text: str) -> timedelta | None:
    """The span since Monday of `Fri 16:00`; None: another form."""
    found = _WEEKLY.fullmatch(text)
    return timedelta(DAYS.index(found[1]), hours=int(found[2]), minutes=int(found[3])) if found else None
