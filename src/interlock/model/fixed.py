"""Fixed answers, which a person gives in place of a model's: FALLBACK, and the output of a rule."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from interlock.core.errors import Usage
from interlock.model.signature import Datatype, Signature

KINDS: dict[Datatype, tuple[type, ...]] = {"FP64": (int, float), "INT64": (int,), "BOOL": (bool,), "BYTES": (str,)}


def check_fixed(what: str, fixed: dict[str, Any], signature: Signature, *, whole: bool = True) -> None:
    """Hold a fixed answer, which came as `what`, against the outputs of a model; not `whole`: a binary score needs no label.

    Raises:
        Usage: it is no answer that this model could give.
    """
    wanted = {output.name: output for output in signature.outputs}
    if not whole and signature.task == "binary":
        fixed = {"label": signature.classes[0]} | fixed
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
