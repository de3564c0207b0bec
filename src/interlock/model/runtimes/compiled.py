"""Compiled tree models: columns to a matrix by plain numpy, trees by treelite's C library; nothing else is imported.

treelite's Python package would import scipy (a fifth of a second, 22 MB) and parse a configuration in every call, so its
documented C functions are called directly.
"""

from __future__ import annotations

import ctypes
import importlib.util
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from interlock.core.errors import Misconfigured, Tampered
from interlock.core.settings import Task
from interlock.model.columns import Array
from interlock.model.runtimes.interface import matrix

FILE = "model/compiled.tl"
PLAN = "model/compiled.json"
LIBRARIES: tuple[str, ...] = ("numpy", "treelite")
FRAME = False
NAN = float("nan")
"""The one key that finds NaN in a dict."""


Kind = Literal["subtract", "divide", "fill", "single", "known"]


class Codes(msgspec.Struct, frozen=True):
    """Texts of a column as numbers, and the numbers of any other text, of None and of NaN; a number None = NaN."""

    known: dict[str, float]
    unknown: float | None
    none: float | None
    nan: float | None


class Step(msgspec.Struct, frozen=True):
    """An operation on the matrix, with a value a column.

    `single`: numbers as scikit-learn's own trees compare them, in 32 bits and not infinite; `known`: NaN is refused.
    """

    kind: Kind
    values: list[float] = []


class Plan(msgspec.Struct, frozen=True):
    """From model columns to the trees' matrix (which columns in which order, texts as codes, then steps in turn), and
    from there to numbers: `width` a row in `dtype`; the softmax is taken here, because treelite's is of 32 bits.
    """

    columns: list[int]
    codes: dict[int, Codes]
    steps: list[Step]
    width: int = 1
    dtype: Literal["float32", "float64"] = "float64"
    softmax: bool = False


class Trees:
    """A treelite checkpoint in memory, with its plan."""

    def __init__(self, plan: Plan, checkpoint: bytes) -> None:
        self.plan = plan
        self.steps = [(step.kind, np.array(step.values)) for step in plan.steps]
        self.tables = {at: {**one.known, None: one.none, NAN: one.nan} for at, one in plan.codes.items()}
        found = importlib.util.find_spec("treelite")
        if found is None or found.origin is None:
            raise Misconfigured(
                "the model needs treelite, which is not installed", next='pip install "interlock[trees]"'
            )
        self.library = ctypes.CDLL(str(Path(found.origin).parent / "lib" / "libtreelite.so"))
        self.library.TreeliteGetLastError.restype = ctypes.c_char_p
        self.handle, self.config = ctypes.c_void_p(), ctypes.c_void_p()
        size, kind = ctypes.c_size_t(len(checkpoint)), b"raw" if plan.softmax else b"default"
        self._call("TreeliteDeserializeModelFromBytes", checkpoint, size, ctypes.byref(self.handle))
        weakref.finalize(self, self.library.TreeliteFreeModel, self.handle)
        config = b'{"predict_type": "%s", "nthread": 1}' % kind
        self._call("TreeliteGTILParseConfig", config, ctypes.byref(self.config))
        weakref.finalize(self, self.library.TreeliteGTILDeleteConfig, self.config)

    def predict(self, columns: list[Array]) -> NDArray[Any]:
        """Numbers [rows, width] of model columns."""
        plan = self.plan
        x = matrix([self._coded(at, columns[at]) if at in self.tables else columns[at] for at in plan.columns])
        for kind, values in self.steps:
            x = _done(kind, values, x)
        x = np.ascontiguousarray(x, plan.dtype)
        found = np.empty((len(x), plan.width), plan.dtype)
        rows, given, out = ctypes.c_uint64(len(x)), ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(found.ctypes.data)
        self._call("TreeliteGTILPredict", self.handle, given, plan.dtype.encode(), rows, out, self.config)
        if not plan.softmax:
            return found
        powers = np.exp(found - found.max(axis=1, keepdims=True), dtype=np.float64)
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def _coded(self, at: int, values: Array) -> list[float | None]:
        table, unknown = self.tables[at], self.plan.codes[at].unknown
        return [table.get(value if value == value else NAN, unknown) for value in values.tolist()]

    def _call(self, name: str, *arguments: Any) -> None:
        if getattr(self.library, name)(*arguments) != 0:
            raise ValueError(self.library.TreeliteGetLastError().decode(errors="replace"))


def _done(kind: Kind, values: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    if kind == "subtract":
        return x - values
    if kind == "divide":
        return x / values
    if kind == "fill":
        return np.where(np.isnan(x), values, x)
    if kind == "single":
        with np.errstate(over="ignore"):
            x = x.astype(np.float32).astype(np.float64)
    if (np.isinf(x) if kind == "single" else np.isnan(x)).any():
        raise ValueError("a model column is infinite, too large for 32 bits, or missing")
    return x


def load(files: Mapping[str, bytes]) -> Trees:
    """The trees of a package's verified files."""
    try:
        return Trees(msgspec.json.decode(files[PLAN], type=Plan), files[FILE])
    except ValueError as error:
        raise Tampered(f"the compiled model cannot be read: {error}") from error


def predict(trees: Trees, task: Task, columns: list[Array]) -> NDArray[Any]:
    """What the trees give after a sigmoid or softmax."""
    return trees.predict(columns)
