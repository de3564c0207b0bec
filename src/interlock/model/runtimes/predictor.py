"""A class of the user's own with `predict(self, frame)`: its source, and its plain state. Nothing is pickled.

The source is cut out of the recipe's module as the feature function is. The state is what `vars(model)` holds: numpy
arrays, and values that JSON gives back as they were. Its probabilities are in the order of the signature's classes.
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
from interlock.model.runtimes.interface import Stored

if TYPE_CHECKING:
    import pandas as pd

SOURCE = "model/predictor.py"
STATE = "model/state.json"
ARRAYS = "model/state.npz"
ENTRY = "__predictor__"
LIBRARIES: tuple[str, ...] = ("numpy", "pandas")
RTOL = 1e-9
FRAME = True


def dump(model: Any, requirements: tuple[str, ...] = ()) -> Stored:
    """Source and state of an instance."""
    source = features.extract_source(type(model), requirements, entry=ENTRY)
    state, buffer = vars(model), io.BytesIO()
    arrays = {name: one for name, one in state.items() if isinstance(one, np.ndarray) and one.dtype.kind in "biufUM"}
    plain = {name: one for name, one in state.items() if name not in arrays}
    for name, value in plain.items():
        if not _is_plain(value):
            raise RecipeFailed(
                f"the {type(model).__name__} holds {name}, a {type(value).__name__}, which cannot be stored",
                next="keep numpy arrays of numbers, and numbers, texts, lists and dicts of them, in its attributes",
            )
    np.savez(buffer, allow_pickle=False, **arrays)
    files = {SOURCE: source.encode(), STATE: msgspec.json.encode(plain), ARRAYS: buffer.getvalue()}
    return Stored(files, code=SOURCE)


def _is_plain(value: Any) -> bool:
    try:
        return bool(msgspec.json.decode(msgspec.json.encode(value)) == value)
    except (TypeError, ValueError):
        return False


def load(files: Mapping[str, bytes]) -> Any:
    """The instance, made without calling its `__init__`."""
    kind: Any = features.load_source(files[SOURCE], digest(files[SOURCE]), entry=ENTRY)
    model = kind.__new__(kind)
    try:
        vars(model).update(msgspec.json.decode(files[STATE], type=dict[str, Any]))
        with np.load(io.BytesIO(files[ARRAYS]), allow_pickle=False) as arrays:
            vars(model).update(arrays)
    except (OSError, ValueError) as error:
        raise Tampered(f"the model's state cannot be read: {error}") from error
    return model


def predict(model: Any, task: Task, frame: pd.DataFrame) -> NDArray[Any]:
    """What the class's own `predict` gives."""
    return np.asarray(model.predict(frame))
