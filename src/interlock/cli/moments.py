"""Times as people give them on the command line."""

from __future__ import annotations

from interlock.core.clock import SystemClock, iso, parse_span, parse_time
from interlock.core.errors import Usage


def moment(flag: str, text: str) -> str:
    """A time as people say it, in ISO 8601: one with an offset, or how long ago (30s, 15m, 1h, 2d).

    Raises:
        Usage: neither; names the flag.
    """
    ago = parse_span(text)
    try:
        return iso(SystemClock().now() - ago if ago is not None else parse_time(text))
    except (ValueError, OverflowError):
        raise Usage(f"{flag} {text}: no time with an offset, nor a span", next=f"as in: {flag} 1h") from None
