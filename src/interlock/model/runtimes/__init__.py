"""One file a library: how its models become bytes, come back safely, and predict. `compiled` is for trees of any of them."""

from __future__ import annotations

from typing import Any

from interlock.core.errors import RecipeFailed
from interlock.model.manifest import RuntimeName
from interlock.model.runtimes import lightgbm, onnx, predictor, sklearn, xgboost
from interlock.model.runtimes.interface import Runtime

RUNTIMES: dict[RuntimeName, Runtime] = {
    "sklearn": sklearn,
    "xgboost": xgboost,
    "lightgbm": lightgbm,
    "onnx": onnx,
    "predictor": predictor,
}
BY_PACKAGE: dict[str, RuntimeName] = {
    "sklearn": "sklearn",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "onnx": "onnx",
}


def runtime_of(model: Any) -> RuntimeName:
    """Which runtime a recipe's return value belongs to, by the module of its type; imports nothing.

    Raises:
        RecipeFailed: it is no model.
    """
    if model is None:
        raise RecipeFailed("the recipe returned nothing", next="end it with: return estimator.fit(…)")
    if isinstance(model, bytes):
        return "onnx"
    packages = [kind.__module__.partition(".")[0] for kind in type(model).__mro__]
    if packages[0] in BY_PACKAGE:
        return BY_PACKAGE[packages[0]]
    # scikit-learn's checks also tell what is wrong with what is no model, and refuse classes derived from its own.
    if "sklearn" in packages or not callable(getattr(model, "predict", None)):
        return "sklearn"
    return "predictor"
