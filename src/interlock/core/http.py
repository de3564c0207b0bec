"""What every HTTP skin of the house shares: request and response, and the tables from errors to status codes.

A skin is `async handle(Request) -> Response`; `core.http_server` carries it, and nothing else of the house knows how.
"""

from __future__ import annotations

import ipaddress
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from interlock.core import errors

STATUS: dict[type[errors.InterlockError], int] = {
    errors.InterlockError: 500,
    errors.Usage: 400,
    errors.Misconfigured: 500,
    errors.NotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.Conflict: 409,
    errors.Refused: 403,
    errors.Tampered: 403,
    errors.NotApproved: 403,
    errors.Expired: 403,
    errors.FourEyes: 403,
    errors.RecipeFailed: 500,
    errors.InvalidData: 500,
    errors.InvalidRequest: 400,
    errors.TooLarge: 413,
    errors.UnsupportedMedia: 415,
    errors.UnknownVersion: 404,
    errors.Unauthenticated: 401,
    errors.RuleRefused: 422,
    errors.Overloaded: 429,
    errors.Unavailable: 503,
    errors.DeadlineExceeded: 504,
    errors.PredictionFailed: 500,
    errors.NotRunning: 503,
    errors.Corrupt: 500,
}
GRPC: dict[int, str] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    409: "FAILED_PRECONDITION",
    413: "RESOURCE_EXHAUSTED",
    415: "INVALID_ARGUMENT",
    422: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""What each status of the table above is in gRPC."""
BODY_LIMIT = 10 * 1024 * 1024
ENCODINGS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""What a body may be compressed with, and zlib's number for it."""
JSON: list[tuple[str, str]] = [("content-type", "application/json")]
TEXT: list[tuple[str, str]] = [("content-type", "text/plain; charset=utf-8")]


class Request:
    """What a handler sees of a request. `headers.get(name, default)` takes lower-case names."""

    __slots__ = ("body", "headers", "method", "path", "too_large")

    def __init__(self, method: str, path: str, headers: Any, body: bytes, too_large: bool = False) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body
        self.too_large = too_large

    def content(self) -> bytes:
        """The body, inflated where it came compressed (RFC 9110, 8.4).

        Raises:
            TooLarge, UnsupportedMedia, InvalidRequest: over the limit; compressed in a way that is not spoken here; broken.
        """
        if self.too_large:
            raise errors.TooLarge(f"the body is over {BODY_LIMIT >> 20} MiB")
        encoding = self.headers.get("content-encoding", "").strip().lower()
        return self.body if encoding in ("", "identity") else _inflated(self.body, encoding)


class Response:
    """Status, headers and body."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, body: bytes, headers: list[tuple[str, str]] = JSON) -> None:
        self.status = status
        self.body = body
        self.headers = headers


Handler = Callable[[Request], Awaitable[Response]]


def _inflated(body: bytes, encoding: str) -> bytes:
    if encoding not in ENCODINGS:
        raise errors.UnsupportedMedia(f"content encoding {encoding!r} is not spoken here; send gzip or deflate")
    inflater = zlib.decompressobj(ENCODINGS[encoding])
    try:
        content = inflater.decompress(body, BODY_LIMIT + 1)
    except zlib.error as error:
        raise errors.InvalidRequest(f"the body is not {encoding}: {error}") from error
    if len(content) > BODY_LIMIT:
        raise errors.TooLarge(f"the body is over {BODY_LIMIT >> 20} MiB when it is inflated")
    if not inflater.eof or inflater.unused_data:
        raise errors.InvalidRequest(f"the body is not one whole piece of {encoding}")
    return content


def json_response(value: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(status, msgspec.json.encode(value))


def status_of(error: errors.InterlockError) -> int:
    """The error's status; a room's own subclass counts as its nearest base in the table."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def code_of(error: errors.InterlockError) -> str:
    """The error's gRPC code, by name."""
    return GRPC[status_of(error)]


def error_response(error: errors.InterlockError) -> Response:
    """`{"error": message}` under the error's status."""
    response = json_response({"error": error.message}, status_of(error))
    if isinstance(error, errors.MethodNotAllowed):
        response.headers = [*JSON, ("allow", error.allowed)]
    return response


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
