"""Times as people give them on the command line."""

from __future__ import annotations

from datetime import datetime

from interlock.core.clock import SystemClock, parse_span, parse_time
from interlock.core.errors import Usage


def moment(flag: str, text: str) -> datetime:
    """An ISO time with an offset, or how long ago: 30s, 15m, 1h, 2d.

    Raises:
        Usage: neither; names the flag.
    """
    ago = parse_span(text)
    try:
        return SystemClock().now() - ago if ago is not None else parse_time(text)
    except (ValueError, OverflowError):
        raise Usage(f"{flag} {text}: no time with an offset, nor a span", next=f"as in: {flag} 1h") from None
