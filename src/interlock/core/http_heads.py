"""Heads of requests: what they say, and those that were parsed before. A client sends the same one nearly every time.

What is the same to the last byte says the same, so it is looked up; that is ten times cheaper than to parse it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote

import httptools

from interlock.core.http import Request

HEAD_LIMIT = 4096
"""Bytes of a head that is remembered."""
HEADS = 256
"""So many; then all are forgotten, for clients that put something new into every head would else fill it for good."""
END = b"\r\n\r\n"
UNREPEATABLE = ("transfer-encoding", "expect")
"""Headers after which more than the bytes at hand decides what happens."""


class Head(NamedTuple):
    """What a head says; `length` bytes of body follow it."""

    method: str
    path: str
    headers: Mapping[str, str]
    length: int


class Heads:
    """Of one server."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}

    def find(self, data: bytes) -> Request | None:
        """The request that `data` is, if it is a whole one and nothing else, with a head that is known."""
        end = data.find(END, 0, HEAD_LIMIT) + len(END)
        head = self._known.get(data[:end])
        if head is None or len(data) != end + head.length:
            return None
        return Request(head.method, head.path, head.headers, data[end:])

    def learn(self, data: bytes, request: Request) -> None:
        """Remember the head of `data`, which the parser took for one request of HTTP/1.1 that leaves its connection open."""
        end = data.find(END, 0, HEAD_LIMIT) + len(END)
        length, headers = len(request.body), request.headers
        if end < len(END) or len(data) != end + length or int(headers.get("content-length") or 0) != length:
            return
        if any(name in headers for name in UNREPEATABLE):
            return
        if len(self._known) >= HEADS:
            self._known.clear()
        self._known[data[:end]] = Head(request.method, request.path, headers, length)


def text_of(value: bytes) -> str:
    """A header's value: UTF-8, as clients send it today, or Latin-1, as the standard once had it."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def path_of(target: bytes) -> str:
    """The decoded path of a request's target, without its query."""
    if not target.startswith(b"/"):
        with contextlib.suppress(httptools.HttpParserInvalidURLError):
            target = httptools.parse_url(target).path or target
    path = target.partition(b"?")[0]
    return unquote(path.decode("latin-1"), "utf-8", "replace") if b"%" in path else path.decode("latin-1")
