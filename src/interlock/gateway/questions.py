"""What a client asks, whatever the codec: who, when, which rows."""

from __future__ import annotations

import re
import secrets
from typing import Any, Protocol

from interlock.core.clock import FIRST_US, LAST_US, now_us, parse_time, to_us
from interlock.core.errors import InvalidRequest
from interlock.model import oip
from interlock.model.columns import Columns
from interlock.model.signature import Signature

UNIT_BYTES = 256
TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?![0-9a-f])")


class Question(Protocol):
    """A parsed body; the columns are read once the arm, and so the signature, is known."""

    id: str | None
    parameters: dict[str, Any]

    def widen(self, signature: Signature) -> list[str]:
        """Let narrower tensors count as the signature's datatypes from here on; the inputs that came so.

        Raises:
            InvalidRequest: a value is beyond its own datatype.
        """
        ...

    def columns(self, signature: Signature) -> tuple[int, Columns]:
        """Rows and checked columns.

        Raises:
            InvalidRequest: they do not fit the signature.
        """
        ...


class OipQuestion:
    """The Open Inference Protocol's question, in whichever of its codecs it came."""

    def __init__(self, request: oip.InferRequest) -> None:
        self.request = request
        self.id = self.request.id
        self.parameters: dict[str, Any] = dict(self.request.parameters or {})

    def widen(self, signature: Signature) -> list[str]:
        """See `Question`."""
        return oip.widen(signature, self.request)

    def columns(self, signature: Signature) -> tuple[int, Columns]:
        """See `Question`."""
        return oip.read_columns(signature, self.request)


def span_of(given: str) -> str:
    """A span of our own in the client's trace (W3C `traceparent`); empty = none that can be read.

    Source: https://www.w3.org/TR/trace-context/, 3.2; a version we do not know is read as version 00.
    """
    found = TRACEPARENT.match(given)
    if found is None or found[1] == "ff" or not found[2].strip("0") or not found[3].strip("0"):
        return ""
    return f"00-{found[2]}-{secrets.token_hex(8)}-{found[4]}"


def unit_of(given: Any) -> str:
    """A client's unit id; empty = none came.

    Raises:
        InvalidRequest: no text or number, or over 256 bytes.
    """
    if given is None or given == "":
        return ""
    if not isinstance(given, str | int) or isinstance(given, bool):
        raise InvalidRequest(f"unit_id: expected text, got {type(given).__name__}")
    text = str(given)
    if len(text.encode()) > UNIT_BYTES:
        raise InvalidRequest(f"unit_id is over {UNIT_BYTES} bytes")
    return text


def time_of(given: Any, name: str = "event_time") -> int:
    """A client's time in microseconds: ISO 8601 with offset, or microseconds; none = now.

    Raises:
        InvalidRequest: neither.
    """
    if given is None or given == "":
        return now_us()
    if isinstance(given, int) and not isinstance(given, bool):
        if FIRST_US <= given <= LAST_US:
            return given
        raise InvalidRequest(f"{name}: expected microseconds within the years 1 to 9999")
    if isinstance(given, str):
        try:
            return to_us(parse_time(given))
        except ValueError as error:
            raise InvalidRequest(f"{name}: expected ISO 8601 with an offset, got {given[:60]!r}") from error
    raise InvalidRequest(f"{name}: expected ISO 8601 with an offset, got {type(given).__name__}")
