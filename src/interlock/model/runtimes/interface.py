"""What every model library's file here offers, and what passes between them and those who use them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from interlock.core.errors import Misconfigured
from interlock.core.settings import Task
from interlock.model.signature import Label


class Stored(msgspec.Struct, frozen=True):
    """A model as files of a package, the main one first; `types` and `code` as the manifest's runtime has them."""

    files: dict[str, bytes]
    types: tuple[str, ...] = ()
    code: str = ""


class Described(msgspec.Struct, frozen=True):
    """What a model says of itself; None where it says nothing.

    `columns`: the names that it was fitted on. `classes`: the labels in the order of its probabilities.
    """

    columns: list[str] | None = None
    classes: list[Label] | None = None


class Loaded(Protocol):
    """What serves a model: one of the libraries, or `compiled`. The file is light to import: whatever else it needs is
    imported by the functions that need it.

    `LIBRARIES`: the distributions that serving needs. `FRAME`: it predicts from a DataFrame of the model columns; else
    from a list of arrays.
    """

    LIBRARIES: tuple[str, ...]
    FRAME: bool

    def load(self, files: Mapping[str, bytes]) -> Any:
        """The model of a package's verified files.

        Raises:
            Tampered: they hold no such model, or one that is not safe to load.
            Misconfigured: the library is not installed.
        """

    def predict(self, model: Any, task: Task, columns: Any) -> NDArray[Any]:
        """Numbers of the model columns' rows, by one thread, for a recipe's model and a loaded one alike.

        Regression: [rows] values. Else probabilities [rows, classes] in the model's own order, or [rows] of the second
        of two classes.
        """


class Runtime(Loaded, Protocol):
    """A model library. `RTOL`: how far its numbers may be off, relatively, on another machine or in another batch."""

    RTOL: float

    def describe(self, model: Any, task: Task) -> Described:
        """What a recipe's model says of itself.

        Raises:
            RecipeFailed: it cannot do the task.
        """

    def dump(self, model: Any, requirements: tuple[str, ...]) -> Stored:
        """The model's files. `requirements`: distributions that own code in it may import.

        Raises:
            RecipeFailed: it cannot be stored safely; the message says why.
        """


def library(name: str, extra: str) -> Any:
    """Import a module of an extra.

    Raises:
        Misconfigured: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise Misconfigured(
            f"the model needs {error.name}, which is not installed", next=f'pip install "interlock[{extra}]"'
        ) from error


def matrix(columns: list[Any], dtype: Any = np.float64) -> NDArray[Any]:
    """Columns of numbers as one contiguous matrix [rows, columns].

    Raises:
        ValueError, TypeError: a column holds something else.
    """
    return np.ascontiguousarray(np.array(columns, dtype).T)
