"""From raw columns to a model's numbers: the one path that training, evaluation and the model server all take."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from interlock.core.errors import PredictionFailed
from interlock.model import features
from interlock.model.columns import Array
from interlock.model.frames import to_frame
from interlock.model.package import Package
from interlock.model.runtimes import sklearn
from interlock.model.signature import Signature


class Predictor:
    """A loaded package. Nothing is verified here: `package.verify` did it, and these are the bytes that it read."""

    def __init__(self, package: Package) -> None:
        self.digest = package.digest
        self.manifest = package.manifest
        self.signature = package.manifest.signature
        source = package.files[features.FILE]
        self._features = features.load_source(source, package.manifest.lineage.features_digest)
        self._estimator = sklearn.load(package.files[package.manifest.runtime.file])
        self._columns = list(package.manifest.feature_columns)

    def predict(self, arrays: list[Array]) -> NDArray[np.float64]:
        """Numbers [rows, width] of raw rows, whose arrays come in the signature's order.

        Raises:
            PredictionFailed: the feature function or the model raised, or gave a number that is not finite.
        """
        return predict(self.signature, self._features, self._columns, self._estimator, arrays)


def predict(
    signature: Signature, function: features.Function, columns: list[str], estimator: Any, arrays: list[Array]
) -> NDArray[np.float64]:
    """What `Predictor.predict` does, for an estimator that is not packaged yet."""
    rows = len(arrays[0])
    try:
        frame = function(to_frame(signature.inputs, arrays))
        if list(frame.columns) != columns:
            frame = frame[columns]
        numbers = sklearn.predict(estimator, signature, frame)
    except Exception as error:
        raise PredictionFailed(f"the model failed on these rows: {type(error).__name__}: {error}") from error
    if numbers.shape != (rows, signature.width):
        raise PredictionFailed(f"the model gave numbers of shape {numbers.shape} for {rows} rows")
    if not np.isfinite(numbers).all():
        raise PredictionFailed("the model gave a number that is not finite")
    return numbers
