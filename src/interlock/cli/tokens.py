"""`interlock tokens`: API keys of clients."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from interlock.cli.identity import As, acting
from interlock.cli.output import Reply, items
from interlock.cli.session import Session
from interlock.core.clock import SystemClock, parse_span
from interlock.core.errors import Usage
from interlock.registry.tokens import Token, Use
from interlock.release.keys import Keys
from interlock.release.tokens import Tokens, all_tokens

COLUMNS = ("name", "id", "endpoints", "uses", "created_at", "created_by", "expires_at")


def create(
    name: str,
    /,
    *,
    session: Session,
    endpoint: Annotated[tuple[str, ...], Parameter(help="Where it counts; again for several (default: all).")] = (),
    use: Annotated[tuple[Use, ...], Parameter(help="What it is for (default: both).")] = ("predict", "feedback"),
    expires: str = "365d",
    as_: As = None,
) -> Reply:
    """Make an API key. It is shown once and kept only as a hash.

    Args:
        name: Whose it is: a client's name.
        expires: In how long, as in 90d or 12h; never.
    """
    end = None if expires == "never" else SystemClock().now() + _span("--expires", expires)
    key, token = Tokens(session.project, acting(as_), Keys.find()).create(name, endpoint, use, end)
    return Reply(
        {**_row(token), "key": key},
        (key, "this is the only time that it is shown; clients send it as: Authorization: Bearer KEY"),
        "interlock tokens list",
    )


def list_tokens(*, session: Session) -> Reply:
    """List API keys, also those that have ended."""
    rows = [_row(token) for token in all_tokens(session.project)]
    return items(rows, COLUMNS, empty="no API keys", next="" if rows else "interlock tokens create NAME --as NAME")


def revoke(token: str, /, *, session: Session, after: str = "0s", as_: As = None) -> Reply:
    """End an API key, now or in a while: a client changes to its next key without a gap.

    Args:
        token: Its id, or a name for all keys of that name.
        after: In how long, as in 2h.
    """
    end: datetime = SystemClock().now() + _span("--after", after)
    ended = Tokens(session.project, acting(as_), Keys.find()).revoke(token, end)
    return items([_row(one) for one in ended], COLUMNS, empty="", next="interlock tokens list")


def _span(flag: str, text: str) -> timedelta:
    span = parse_span(text)
    if span is None:
        raise Usage(f"{flag} {text}: no span of time", next=f"as in: {flag} 90d")
    return span


def _row(token: Token) -> dict[str, Any]:
    return {name: value for name, value in msgspec.to_builtins(token).items() if name != "hash"}
