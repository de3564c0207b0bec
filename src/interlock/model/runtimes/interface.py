"""What every model library's file here offers, and what they share."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from interlock.core.errors import Misconfigured, RecipeFailed
from interlock.core.settings import Task
from interlock.model.signature import Label


class Stored(msgspec.Struct, frozen=True):
    """A model as files of a package, the main one first, and what it says of itself (None: nothing).

    `columns`: the names it was fitted on. `classes`: labels in the order of its probabilities. `types` and `code`: as in
    the manifest.
    """

    files: dict[str, bytes]
    columns: list[str] | None = None
    classes: list[Label] | None = None
    types: tuple[str, ...] = ()
    code: str = ""


class Runtime(Protocol):
    """A model library; its file imports the library itself in functions only.

    `LIBRARIES`: the distributions that serving needs. `RTOL`: how far its numbers may be off, relatively, on another
    machine or in another batch. `FRAME`: it predicts from a DataFrame of the model columns, else from a list of arrays.
    """

    LIBRARIES: tuple[str, ...]
    RTOL: float
    FRAME: bool

    def dump(self, model: Any, requirements: tuple[str, ...] = ()) -> Stored:
        """Store a recipe's model, or raise RecipeFailed. `requirements`: distributions that own code may import."""

    def load(self, files: Mapping[str, bytes]) -> Any:
        """The model of a package's verified files; Tampered if they hold none that is safe to load."""

    def predict(self, model: Any, task: Task, columns: Any) -> NDArray[Any]:
        """Numbers for model columns, by one thread, from a loaded model; with FRAME from a recipe's own too.

        Regression: [rows] values; else probabilities [rows, classes], or [rows] of the second of two classes.
        """


def library(name: str, extra: str) -> Any:
    """Import a module of an extra, or raise Misconfigured with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise Misconfigured(
            f"the model needs {error.name}, which is not installed", next=f'pip install "interlock[{extra}]"'
        ) from error


def matrix(columns: list[Any], dtype: Any = np.float64) -> NDArray[Any]:
    """Columns of numbers as one contiguous matrix [rows, columns]; ValueError or TypeError for anything else."""
    return np.ascontiguousarray(np.asarray(columns, dtype).T)


def booster_of(model: Any) -> Any:
    """The booster in a scikit-learn wrapper of XGBoost or LightGBM, if it is fitted; or a booster itself."""
    if not hasattr(model, "__sklearn_is_fitted__"):
        return model
    if not model.__sklearn_is_fitted__():
        raise RecipeFailed(f"the {type(model).__name__} was not fitted", next="call .fit(data.features, data.label)")
    return model.booster_ if hasattr(model, "booster_") else model.get_booster()


def classes_of(model: Any) -> list[Label] | None:
    """The labels that a scikit-learn interface knows."""
    classes = getattr(model, "classes_", None)
    return None if classes is None else list(classes.tolist())
