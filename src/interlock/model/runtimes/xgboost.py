"""XGBoost models: the booster in the library's own UBJSON, without the trees that early stopping gave up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interlock.core.errors import RecipeFailed, Tampered
from interlock.core.settings import Task
from interlock.model.columns import Array
from interlock.model.runtimes.interface import Described, Stored, library, matrix

FILE = "model/model.ubj"
LIBRARIES: tuple[str, ...] = ("numpy", "scipy", "xgboost-cpu")
RTOL = 1e-5
"""It computes in 32 bits."""
FRAME = False


def booster_of(model: Any) -> Any:
    """The booster of a scikit-learn wrapper as the wrapper itself predicts, or a booster itself.

    Raises:
        RecipeFailed: the wrapper is not fitted.
    """
    if not hasattr(model, "get_booster"):
        return model
    if not model.__sklearn_is_fitted__():
        raise RecipeFailed(f"the {type(model).__name__} was not fitted", next="call .fit(data.features, data.label)")
    booster = model.get_booster()
    best = booster.attr("best_iteration")
    return booster if best is None else booster[: int(best) + 1]


def describe(model: Any, task: Task) -> Described:
    """Names that the booster was trained on; a wrapper's classes, which XGBoost wants as 0, 1, 2 …"""
    booster = booster_of(model)
    classes = None if task == "regression" else getattr(model, "classes_", None)
    return Described(booster.feature_names or [], None if classes is None else classes.tolist())


def dump(model: Any, requirements: tuple[str, ...] = ()) -> Stored:
    """The booster as UBJSON."""
    return Stored({FILE: bytes(booster_of(model).save_raw("ubj"))})


def load(files: Mapping[str, bytes]) -> Any:
    """The booster of UBJSON, predicting by one thread."""
    xgboost = library("xgboost", "xgboost")
    try:
        return xgboost.Booster({"nthread": 1}, model_file=bytearray(files[FILE]))
    except xgboost.core.XGBoostError as error:
        raise Tampered(f"the model file cannot be read: {str(error).splitlines()[0]}") from error


def predict(model: Any, task: Task, columns: list[Array]) -> NDArray[Any]:
    """What the booster's objective gives: a value, P(second class) or probabilities; NaN is missing."""
    return np.asarray(booster_of(model).inplace_predict(matrix(columns, np.float32), validate_features=False))
