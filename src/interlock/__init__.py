"""Interlock: train, judge, sign, serve, log and watch models, with a person between training and serving."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

__version__ = "0.1.0"


def save(
    model: Any,
    name: str,
    sample: Any,
    *,
    task: Literal["binary", "multiclass", "regression"] | None = None,
    label: str = "",
    features: Callable[[Any], Any] | None = None,
    folder: str | Path = ".",
) -> Path:
    """Write a model that was trained elsewhere to the directory `name`, which `interlock register` takes.

    No pickle: the model's own file format, the rows of `sample` with the model's answers, the feature function's source.
    An earlier save of that name is replaced.

    Args:
        model: A fitted model of scikit-learn, XGBoost or LightGBM, an ONNX graph, or an object of a class of your own.
        name: The model's name in the project: lower-case words with hyphens.
        sample: Raw rows, a DataFrame; at most 1000 are kept.
        task: Needed where the model does not tell: for boosters, ONNX graphs and own classes.
        label: A column of the sample that is no input.
        features: The function that makes the model's columns of raw ones; None = the raw columns are the model's.
        folder: Where the directory is made.

    Raises:
        InterlockError: it cannot be saved; the message says why.
    """
    from importlib import import_module

    from interlock.core.errors import Misconfigured

    try:
        saving: Any = import_module("interlock.training.saving")  # by name: the base install goes without all it needs
        made: Path = saving.save(model, name, sample, task, label, features, Path(folder))
    except ModuleNotFoundError as error:
        raise Misconfigured(
            f"interlock.save needs {error.name}, which is not installed", next='pip install "interlock[train]"'
        ) from error
    return made
