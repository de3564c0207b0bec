"""From raw columns to a model's numbers: the one path that training, evaluation and the model server all take."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from interlock.core.errors import PredictionFailed
from interlock.model import features
from interlock.model.columns import Array
from interlock.model.frames import to_columns, to_frame
from interlock.model.package import Package
from interlock.model.runtimes import RUNTIMES, compiled
from interlock.model.signature import Label, Signature


class Engine(msgspec.Struct, frozen=True):
    """What makes numbers of model columns, whose names are `columns`. `classes`: the order of its probabilities."""

    runtime: Any
    """A `Runtime`, or `compiled`, which only loads and predicts."""
    model: Any
    signature: Signature
    columns: list[str]
    classes: tuple[Label, ...]

    def prepare(self, function: features.Function | None, arrays: list[Array]) -> Any:
        """Model columns of raw rows as the runtime takes them. No function: the raw arrays are the columns."""
        if function is None:
            return arrays
        frame = function(to_frame(self.signature.inputs, arrays))
        if list(frame.columns) != self.columns:
            frame = frame[self.columns]
        return frame if self.runtime.FRAME else to_columns(frame, self.columns)

    def ask(self, prepared: Any, rows: int) -> NDArray[np.float64]:
        """Numbers [rows, width] of prepared columns: P(positive), probabilities in the signature's order, or the value."""
        signature = self.signature
        found = self.runtime.predict(self.model, signature.task, prepared)
        numbers = np.asarray(found, np.float64).reshape(rows, -1)
        if signature.task == "regression":
            return numbers
        order = self.classes or signature.classes
        if signature.task == "multiclass":
            return numbers[:, [order.index(label) for label in signature.classes]]
        at = order.index(signature.classes[1])
        return numbers[:, [at]] if numbers.shape[1] == 2 else numbers if at else 1.0 - numbers

    def predict(self, function: features.Function | None, arrays: list[Array]) -> NDArray[np.float64]:
        """Numbers [rows, width] of raw rows, whose arrays come in the signature's order.

        Raises:
            PredictionFailed: the feature function or the model raised, or gave a number that is not finite.
        """
        rows = len(arrays[0])
        try:
            numbers = self.ask(self.prepare(function, arrays), rows)
        except KeyboardInterrupt:
            raise  # a person's own, in training
        except BaseException as error:  # SystemExit too: what the user's code does is an answer, not our end
            raise PredictionFailed(f"the model failed on these rows: {type(error).__name__}: {error}") from error
        if numbers.shape != (rows, self.signature.width):
            raise PredictionFailed(f"the model gave numbers of shape {numbers.shape} for {rows} rows")
        if not np.isfinite(numbers).all():
            raise PredictionFailed("the model gave a number that is not finite")
        return numbers


class Predictor:
    """A loaded package. Nothing is verified here: `package.verify` did it, and these are the bytes that it read."""

    def __init__(self, package: Package) -> None:
        manifest = package.manifest
        self.digest = package.digest
        self.manifest = manifest
        self.signature = manifest.signature
        found = manifest.runtime
        runtime: Any = compiled if found.compiled and found.compiled.file == compiled.FILE else RUNTIMES[found.name]
        model = runtime.load(package.files)
        self._engine = Engine(runtime, model, self.signature, list(manifest.feature_columns), found.classes)
        source = package.files[features.FILE]
        skip = needs_no_frame(source, self.signature) and not runtime.FRAME
        self._features = None if skip else features.load_source(source, manifest.lineage.features_digest)
        self.quick = runtime is compiled and skip
        """Whether an answer takes no longer than handing the question to another thread would."""

    def predict(self, arrays: list[Array]) -> NDArray[np.float64]:
        """Numbers [rows, width] of raw rows, whose arrays come in the signature's order.

        Raises:
            PredictionFailed: the feature function or the model raised, or gave a number that is not finite.
        """
        return self._engine.predict(self._features, arrays)


def needs_no_frame(source: bytes, signature: Signature) -> bool:
    """Whether raw arrays are model columns as they come: no pandas then, which is half of a small server's memory."""
    return source == features.IDENTITY.encode() and all(one.type != "timestamp" for one in signature.inputs)
