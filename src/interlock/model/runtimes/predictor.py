"""A class of the user's own with `predict(self, frame)`: its source, and its plain state. Nothing is pickled.

The source is cut out of the recipe's module as the feature function is. The state is what `vars(model)` holds: numpy
arrays, and values that JSON gives back as they were.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from interlock.core.errors import RecipeFailed, Tampered
from interlock.core.hashing import digest
from interlock.core.settings import Task
from interlock.model import features
from interlock.model.runtimes.interface import Described, Stored

if TYPE_CHECKING:
    import pandas as pd

SOURCE = "model/predictor.py"
STATE = "model/state.json"
ARRAYS = "model/state.npz"
ENTRY = "__predictor__"
LIBRARIES: tuple[str, ...] = ("numpy", "pandas")
RTOL = 1e-9
FRAME = True


def describe(model: Any, task: Task) -> Described:
    """Such a class says nothing: its probabilities are in the order of the signature's classes."""
    return Described()


def dump(model: Any, requirements: tuple[str, ...] = ()) -> Stored:
    """Source and state of an instance."""
    source = features.extract_source(type(model), requirements, entry=ENTRY)
    plain, arrays, buffer = {}, dict[str, Any](), io.BytesIO()
    for name, value in vars(model).items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "biufUM":
            arrays[name] = value
        elif _is_plain(value):
            plain[name] = value
        else:
            raise RecipeFailed(
                f"the {type(model).__name__} holds {name}, a {type(value).__name__}, which cannot be stored",
                next="keep numpy arrays of numbers, and numbers, texts, lists and dicts of them, in its attributes",
            )
    np.savez(buffer, **arrays)
    files = {SOURCE: source.encode(), STATE: msgspec.json.encode(plain), ARRAYS: buffer.getvalue()}
    return Stored(files, code=SOURCE)


def _is_plain(value: Any) -> bool:
    try:
        return bool(msgspec.json.decode(msgspec.json.encode(value)) == value)
    except (TypeError, ValueError):
        return False


def load(files: Mapping[str, bytes]) -> Any:
    """The instance, made without calling its `__init__`."""
    source = files[SOURCE]
    kind: Any = features.load_source(source, digest(source), entry=ENTRY)
    try:
        plain = msgspec.json.decode(files[STATE], type=dict[str, Any])
        with np.load(io.BytesIO(files[ARRAYS]), allow_pickle=False) as arrays:
            state = {**plain, **arrays}
    except (OSError, ValueError) as error:
        raise Tampered(f"the model's state cannot be read: {error}") from error
    model = kind.__new__(kind)
    vars(model).update(state)
    return model


def predict(model: Any, task: Task, frame: pd.DataFrame) -> NDArray[Any]:
    """What the class's own `predict` gives."""
    return np.asarray(model.predict(frame))
