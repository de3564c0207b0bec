"""XGBoost models: the booster in the library's own UBJSON, without the trees that early stopping gave up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interlock.core.errors import Tampered
from interlock.core.settings import Task
from interlock.model.columns import Array
from interlock.model.runtimes.interface import Stored, booster_of, classes_of, library, matrix

FILE = "model/model.ubj"
LIBRARIES: tuple[str, ...] = ("numpy", "scipy", "xgboost-cpu")
RTOL = 1e-5  # it computes in 32 bits
FRAME = False


def dump(model: Any, requirements: tuple[str, ...] = ()) -> Stored:
    """The booster as UBJSON; one that comes without a wrapper keeps all of its trees, as the library has it."""
    booster = booster_of(model)
    best = None if booster is model else booster.attr("best_iteration")
    kept = booster if best is None else booster[: int(best) + 1]
    return Stored({FILE: bytes(kept.save_raw("ubj"))}, booster.feature_names or [], classes_of(model))


def load(files: Mapping[str, bytes]) -> Any:
    """The booster of UBJSON."""
    xgboost = library("xgboost", "xgboost")
    try:
        return xgboost.Booster({"nthread": 1}, model_file=bytearray(files[FILE]))
    except xgboost.core.XGBoostError as error:
        raise Tampered(f"the model file cannot be read: {str(error).splitlines()[0]}") from error


def predict(model: Any, task: Task, columns: list[Array]) -> NDArray[Any]:
    """What the booster's objective gives; NaN is missing."""
    return np.asarray(model.inplace_predict(matrix(columns, np.float32), validate_features=False))
