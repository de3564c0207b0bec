"""Effective parameters of an endpoint: the gateway's environment pins, else the route document says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from interlock.core.errors import Misconfigured, Usage
from interlock.core.project import snake
from interlock.core.settings import parse_value
from interlock.model.fixed import check_fixed
from interlock.model.signature import Signature
from interlock.registry.routes import Parameters

NAMES: tuple[str, ...] = tuple(field.encode_name for field in msgspec.structs.fields(Parameters))
TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


def pins(endpoint: str, environment: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Parameters that the environment pins: name → (variable, text); the most specific variable wins."""
    found = {}
    for name in NAMES:
        for variable in (f"INTERLOCK_PARAM__{snake(endpoint).upper()}__{name}", f"INTERLOCK_PARAM__{name}", name):
            if variable in environment:
                found[name] = (variable, environment[variable])
                break
    return found


def effective(route: Parameters, pinned: Mapping[str, tuple[str, str]]) -> Parameters:
    """The route's parameters under the pins.

    Raises:
        Misconfigured: a pinned text is no value of that parameter.
    """
    if not pinned:
        return route
    values: dict[str, Any] = msgspec.to_builtins(route)
    for name, (_, text) in pinned.items():
        values[name] = _value(name, text)
    try:
        return msgspec.convert(values, Parameters)
    except msgspec.ValidationError as error:
        variables = ", ".join(variable for variable, _ in pinned.values())
        raise Misconfigured(f"the environment of this gateway ({variables}): {error}") from error


def check_pinned(parameters: Parameters, variable: str, signatures: Iterable[Signature]) -> None:
    """Hold a FALLBACK that the environment pins against the arms' models; one in the route's document was, before it was signed.

    Raises:
        Misconfigured: it is no answer that they could give.
    """
    fixed = parameters.fallback
    if not isinstance(fixed, dict):
        return
    for signature in signatures:
        try:
            check_fixed("FALLBACK", fixed, signature, whole=False)
        except Usage as error:
            raise Misconfigured(f"the environment of this gateway ({variable}): {error.message}") from error


def _value(name: str, text: str) -> Any:
    if name == "ACTIVATE":
        lowered = text.strip().lower()
        return True if lowered in TRUE else False if lowered in FALSE else text
    if name in ("ACTIVE_MODEL", "LOG_INPUTS"):
        return text
    return parse_value(text)
