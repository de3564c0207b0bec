"""Parameters as a person changes them: texts to values, and whether they fit the model they are for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from interlock.core.errors import Usage
from interlock.core.settings import parse_value
from interlock.model.fixed import check_fixed
from interlock.model.signature import Signature
from interlock.registry.routes import Parameters

TEXTS = ("ACTIVE_MODEL", "LOG_INPUTS")
"""Never read as JSON: version `2` is a name."""


def changed_parameters(before: Parameters, changes: Mapping[str, str]) -> Parameters:
    """The parameters with `NAME` → text applied.

    Raises:
        Usage: an unknown name, or a value of the wrong type or range.
    """
    values: dict[str, Any] = msgspec.to_builtins(before)
    for name, text in changes.items():
        if name not in values:
            raise Usage(f"there is no parameter {name} (there are: {', '.join(values)})")
        values[name] = text if name in TEXTS else parse_value(text)
    try:
        return msgspec.convert(values, Parameters)
    except msgspec.ValidationError as error:
        raise Usage(f"{', '.join(f'{name}={text}' for name, text in changes.items())}: {error}") from None


def check_parameters(parameters: Parameters, signature: Signature, live: Collection[str]) -> None:
    """Hold parameters against the champion's signature and the names of the live arms and versions.

    Raises:
        Usage: ACTIVE_MODEL names nothing that is live, FALLBACK is no answer that this model could give, or THRESHOLD no
            probability.
    """
    if not 0 <= parameters.threshold <= 1:
        raise Usage(
            f"THRESHOLD is a probability from 0 to 1, got {parameters.threshold:g}", next="as in: THRESHOLD=0.4"
        )
    if parameters.active_model and parameters.active_model not in live:
        raise Usage(f"ACTIVE_MODEL={parameters.active_model} is not live (there: {', '.join(sorted(live))})")
    if parameters.log_inputs != "all":
        raise Usage(f"LOG_INPUTS={parameters.log_inputs} is not known", next="LOG_INPUTS=all")
    if isinstance(parameters.fallback, dict):
        check_fixed("FALLBACK", parameters.fallback, signature)
    elif parameters.fallback != "error":
        raise Usage(f"FALLBACK is `error` or a fixed answer, got {parameters.fallback!r}", next="FALLBACK=error")
