"""The marks on a user's functions. They change nothing: a marked function can be called and tested like any other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from interlock.core.settings import Task

F = TypeVar("F", bound=Callable[..., Any])
MARK = "__interlock_recipe__"


class RecipeMark(msgspec.Struct, frozen=True):
    """What `@recipe` says of a training function."""

    task: Task
    features: Callable[[Any], Any] | None


def features(function: F) -> F:
    """Mark the feature function: raw columns in, model columns out, pure; training and model server run it."""
    return function


def recipe(*, task: Task, features: Callable[[Any], Any] | None = None) -> Callable[[F], F]:
    """Mark the training function of a model: `train(data, *, parameter=default)` returns a fitted model.

    That is an estimator of scikit-learn, XGBoost or LightGBM, a booster of the last two, an ONNX graph, or an object of a
    class of your own: `predict(self, frame)` gives P(positive), a value, or a probability a class for each row, and its
    attributes are numpy arrays and plain JSON values.

    `features`: the function that makes the model's columns; None = the raw columns are the model's.
    """

    def mark(function: F) -> F:
        setattr(function, MARK, RecipeMark(task, features))
        return function

    return mark
