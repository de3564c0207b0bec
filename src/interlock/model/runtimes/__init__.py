"""One file a library: how its models become bytes, come back safely, and predict. `compiled` is for trees of any of them."""

from __future__ import annotations

from typing import Any

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


def runtime_of(model: Any) -> RuntimeName:
    """Which runtime a recipe's return value belongs to, by the module of its type; imports nothing."""
    packages = [kind.__module__.partition(".")[0] for kind in type(model).__mro__]
    if isinstance(model, bytes) or packages[0] == "onnx":
        return "onnx"
    if packages[0] in ("xgboost", "lightgbm"):
        return "xgboost" if packages[0] == "xgboost" else "lightgbm"
    # scikit-learn's checks also say what is wrong with what is no model, and refuse classes derived from its own.
    return "predictor" if "sklearn" not in packages and callable(getattr(model, "predict", None)) else "sklearn"
