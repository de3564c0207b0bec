"""LightGBM models: the booster as the library's own text, up to its best iteration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interlock.core.errors import RecipeFailed, Tampered
from interlock.core.settings import Task
from interlock.model.columns import Array
from interlock.model.runtimes.interface import Described, Stored, library, matrix

FILE = "model/model.txt"
LIBRARIES: tuple[str, ...] = ("lightgbm", "numpy", "scipy")
RTOL = 1e-9
FRAME = False


def booster_of(model: Any) -> Any:
    """The booster of a scikit-learn wrapper, or a booster itself.

    Raises:
        RecipeFailed: the wrapper is not fitted.
    """
    if not hasattr(model, "fit"):
        return model
    if not model.__sklearn_is_fitted__():
        raise RecipeFailed(f"the {type(model).__name__} was not fitted", next="call .fit(data.features, data.label)")
    return model.booster_


def describe(model: Any, task: Task) -> Described:
    """Names that the booster was trained on, in which LightGBM writes _ for a space; a wrapper's classes."""
    classes = None if task == "regression" else getattr(model, "classes_", None)
    return Described(booster_of(model).feature_name(), None if classes is None else classes.tolist())


def dump(model: Any, requirements: tuple[str, ...] = ()) -> Stored:
    """The booster as text."""
    return Stored({FILE: booster_of(model).model_to_string().encode()})


def load(files: Mapping[str, bytes]) -> Any:
    """The booster of a text."""
    lightgbm = library("lightgbm", "lightgbm")
    try:
        return lightgbm.Booster(model_str=files[FILE].decode())
    except (lightgbm.basic.LightGBMError, UnicodeDecodeError) as error:
        raise Tampered(f"the model file cannot be read: {error}") from error


def predict(model: Any, task: Task, columns: list[Array]) -> NDArray[Any]:
    """What the booster's objective gives: a value, P(second class) or probabilities; NaN is missing."""
    return np.asarray(booster_of(model).predict(matrix(columns), num_threads=1))
