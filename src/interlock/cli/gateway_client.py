"""The one place where the command line speaks to the running gateway, as any client would."""

from __future__ import annotations

from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from typing import Any

import msgspec

from interlock.core.errors import (
    DeadlineExceeded,
    InterlockError,
    InvalidRequest,
    NotFound,
    NotRunning,
    PredictionFailed,
    Unavailable,
)
from interlock.core.project import Project

ERRORS: dict[int, type[InterlockError]] = {400: InvalidRequest, 404: NotFound, 503: Unavailable, 504: DeadlineExceeded}
TIMEOUT_SECONDS = 120.0


class Answer(msgspec.Struct, frozen=True):
    """What the gateway said; header names in lower case."""

    headers: dict[str, str]
    document: Any


def post(project: Project, path: str, document: Any, headers: Mapping[str, str] | None = None) -> Answer:
    """Send JSON to this project's gateway.

    Raises:
        NotRunning: nobody listens there.
        InterlockError: of the class that the status stands for, with the gateway's own words.
    """
    serve = project.settings().serve
    connection = HTTPConnection(serve.host, serve.gateway_port, timeout=TIMEOUT_SECONDS)
    try:
        body = msgspec.json.encode(document)
        connection.request("POST", path, body, {"content-type": "application/json", **(headers or {})})
        response = connection.getresponse()
        data = response.read()
    except (OSError, HTTPException) as error:
        raise NotRunning(
            f"no gateway answers at {serve.host}:{serve.gateway_port} ({error})", next="start with interlock up"
        ) from error
    finally:
        connection.close()
    found = {name.lower(): value for name, value in response.getheaders()}
    if response.status >= 400:
        raise _error(response.status, data, found.get("x-interlock-prediction-id", ""))
    return Answer(found, msgspec.json.decode(data))


def _error(status: int, data: bytes, prediction: str) -> InterlockError:
    try:
        message = msgspec.json.decode(data, type=dict[str, Any])["error"]
    except (msgspec.DecodeError, KeyError):
        message = f"the gateway answered {status}: {data[:200].decode(errors='replace')}"
    step = f"interlock explain {prediction}" if prediction else "interlock status"
    return ERRORS.get(status, PredictionFailed)(message, next=step)
