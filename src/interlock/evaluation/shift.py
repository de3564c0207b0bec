"""How far the training rows moved from the champion's: a PSI for each raw input, in the bins of the champion's profile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from interlock.model import profile
from interlock.model.columns import Array
from interlock.model.psi import psi
from interlock.model.signature import Input

MIN_ROWS = 500
MOVED, SLIGHT = 0.2, 0.1


class Shift(Struct, frozen=True):
    """One raw input. "moved" over 0.2, "slightly moved" over 0.1, and never below the `null` that chance explains (a loose
    one: the two may share rows). "new": the champion does not know it. "too small": fewer than 500 rows on a side.
    """

    input: str
    psi: float | None
    null: float | None
    n: int
    verdict: Literal["alike", "slightly moved", "moved", "too small", "new"]
    detail: str = ""


def shifts(reference: profile.Profile, inputs: Sequence[Input], arrays: list[Array]) -> list[Shift]:
    """Each input's training rows against the profile, the one that moved most first. Time stamps have no profile."""
    found = []
    for spec, values in zip(inputs, arrays, strict=True):
        name, before = spec.name, reference.inputs.get(spec.name)
        if spec.type == "timestamp":
            continue
        if before is None or isinstance(before, profile.Numeric) != (spec.type in ("float", "int")):
            found.append(Shift(name, None, None, len(values), "new"))
            continue
        one = psi(*profile.count(before, values))
        over, least = one.value or 0.0, one.null
        few = one.value is None or min(one.n, before.n) < MIN_ROWS
        moved = over > max(MOVED, least), over > max(SLIGHT, least)
        verdict: Literal["alike", "slightly moved", "moved", "too small"] = (
            "too small" if few else "moved" if moved[0] else "slightly moved" if moved[1] else "alike"
        )
        found.append(Shift(name, one.value, one.null, one.n, verdict, one.detail))
    return sorted(found, key=lambda shift: -(shift.psi or 0.0))
