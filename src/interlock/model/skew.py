"""How far a raw input that was served is from the same input rebuilt."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from interlock.model.columns import NAT, Array
from interlock.model.signature import Input

RTOL = 1e-9
"""Relative difference up to which two floats are equal; everything else is compared exactly."""
_TINY = np.finfo(np.float64).tiny


def apart(spec: Input, served: Array, rebuilt: Array) -> NDArray[np.float64]:
    """Row by row: 0 = equal, or both missing; the relative difference of numbers and times; infinity = one is missing, or
    texts differ. Arrays as in `model.columns`; a side without a missing value may be of its narrower type.
    """
    gone, lost = _missing(spec, served), _missing(spec, rebuilt)
    found = np.where((gone != lost) | ((served != rebuilt) & ~gone), np.inf, 0.0)
    if spec.type not in ("string", "category"):
        both = ~(gone | lost)
        a, b = served[both].astype(np.float64), rebuilt[both].astype(np.float64)
        relative = np.maximum(np.abs(a - b) / np.maximum(np.maximum(np.abs(a), np.abs(b)), _TINY), _TINY)
        equal = relative <= RTOL if spec.type == "float" else served[both] == rebuilt[both]
        found[both] = np.where(equal, 0.0, relative)
    return found


def _missing(spec: Input, values: Array) -> NDArray[np.bool_]:
    if values.dtype == object:
        return np.array([value is None for value in values], np.bool_)
    return np.asarray(values == NAT if spec.type == "timestamp" else values != values)
