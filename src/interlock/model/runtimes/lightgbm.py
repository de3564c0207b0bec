"""LightGBM models: the booster as the library's own text, up to its best iteration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interlock.core.errors import Tampered
from interlock.core.settings import Task
from interlock.model.columns import Array
from interlock.model.runtimes.interface import Stored, booster_of, classes_of, library, matrix

FILE = "model/model.txt"
LIBRARIES: tuple[str, ...] = ("lightgbm", "numpy", "scipy")
RTOL = 1e-9
FRAME = False


def dump(model: Any, requirements: tuple[str, ...] = ()) -> Stored:
    """The booster as text."""
    booster = booster_of(model)
    return Stored({FILE: booster.model_to_string().encode()}, booster.feature_name(), classes_of(model))


def load(files: Mapping[str, bytes]) -> Any:
    """The booster of a text."""
    lightgbm = library("lightgbm", "lightgbm")
    try:
        return lightgbm.Booster(model_str=files[FILE].decode())
    except (lightgbm.basic.LightGBMError, UnicodeDecodeError) as error:
        raise Tampered(f"the model file cannot be read: {error}") from error


def predict(model: Any, task: Task, columns: list[Array]) -> NDArray[Any]:
    """What the booster's objective gives; NaN is missing."""
    return np.asarray(model.predict(matrix(columns), num_threads=1))
