"""Parameters as a person changes them: texts to values, and whether they fit the model they are for."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from interlock.core.errors import Usage
from interlock.core.settings import parse_value
from interlock.model.signature import Datatype, Signature
from interlock.registry.routes import Parameters

TEXTS = ("ACTIVE_MODEL", "LOG_INPUTS")
"""Never read as JSON: version `2` is a name."""
KINDS: dict[Datatype, tuple[type, ...]] = {"FP64": (int, float), "INT64": (int,), "BOOL": (bool,), "BYTES": (str,)}


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


def check_fixed(what: str, fixed: dict[str, Any], signature: Signature) -> None:
    """Hold a fixed answer, which came as `what`, against the outputs of a model.

    Raises:
        Usage: it is no answer that this model could give.
    """
    wanted = {output.name: output for output in signature.outputs}
    if set(fixed) != set(wanted):
        raise Usage(
            f"{what} is an object with {' and '.join(wanted)}, got {fixed!r}",
            next=f"as in: {what}='{msgspec.json.encode(_example(signature)).decode()}'",
        )
    for name, value in fixed.items():
        many = len(wanted[name].shape) > 1
        numbers = value if many and isinstance(value, list) else [value]
        fits = len(numbers) == (signature.width if many else 1)
        if not fits or not all(_is(wanted[name].datatype, one) for one in numbers):
            raise Usage(f"{what}: {name} cannot be {value!r}")
        if name == "label" and value not in signature.classes:
            raise Usage(f"{what}: label is one of {', '.join(map(str, signature.classes))}, got {value!r}")


def _is(datatype: Datatype, value: Any) -> bool:
    if isinstance(value, bool) and datatype != "BOOL":
        return False
    return isinstance(value, KINDS[datatype]) and not (isinstance(value, float) and not math.isfinite(value))


def _example(signature: Signature) -> dict[str, Any]:
    if signature.task == "regression":
        return {"value": 0.0}
    label = signature.classes[0]
    if signature.task == "binary":
        return {"score": 0.0, "label": label}
    return {"label": label, "probabilities": [1.0 / signature.width] * signature.width}
