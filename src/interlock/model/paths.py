"""The paths of the data plane, and the methods each takes: Open Inference Protocol, MLflow's scoring, health and metrics."""

from __future__ import annotations

from collections.abc import Mapping

from interlock.core.errors import InterlockError, MethodNotAllowed, NotFound
from interlock.core.http import Request

READ, ASK = "GET, HEAD", "POST"
_MODEL, _VERSION = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
SERVED: dict[str, str] = {
    **dict.fromkeys(("/livez", "/readyz", "/ping", "/version", "/metrics"), READ),
    **dict.fromkeys(("/v2", "/v2/", "/v2/health/live", "/v2/health/ready"), READ),
    **dict.fromkeys((_MODEL, _VERSION, f"{_MODEL}/ready", f"{_VERSION}/ready"), READ),
    **dict.fromkeys((f"{_MODEL}/infer", f"{_VERSION}/infer", "/invocations"), ASK),
}
"""What gateway and model server both answer."""


def template(path: str) -> str:
    """The path with what varies named, as OpenTelemetry names a route."""
    match path.split("/"):
        case ["", "v2", "models", _, "versions", _, *rest]:
            return "/".join([_VERSION, *rest])
        case ["", "v2", "models", _, *rest]:
            return "/".join([_MODEL, *rest])
        case ["", "endpoints", _, *rest]:
            return "/".join(["/endpoints/{endpoint}", *rest])
    return path


def unserved(request: Request, served: Mapping[str, str]) -> InterlockError:
    """What is said of a request that nobody takes: its path is not there, or takes other methods."""
    allowed = served.get(template(request.path), "")
    if not allowed:
        return NotFound(f"nothing is served at {request.path}")
    return MethodNotAllowed(f"{request.path} takes {allowed}, not {request.method}", allowed=allowed)
