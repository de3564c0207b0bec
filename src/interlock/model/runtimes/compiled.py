"""Compiled tree models: columns to a matrix by plain numpy, trees by treelite's C library; nothing else is imported.

treelite's Python package would import scipy (a fifth of a second, 22 MB) and parse a configuration in every call, so its
documented C functions are called directly.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
CONFIG = b'{"predict_type": "%s", "nthread": 1}'
NAN = float("nan")
"""The one key that finds NaN in a dict."""


class Scale(msgspec.Struct, frozen=True, tag="scale"):
    """(x − mean) / scale; either may be missing."""

    mean: list[float] | None
    scale: list[float] | None

    def apply(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The scaled matrix."""
        if self.mean is not None:
            x = x - self.mean
        return x if self.scale is None else x / self.scale


class Fill(msgspec.Struct, frozen=True, tag="fill"):
    """NaN becomes the column's value."""

    values: list[float]

    def apply(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The matrix without NaN."""
        return np.where(np.isnan(x), self.values, x)


class Single(msgspec.Struct, frozen=True, tag="single"):
    """Numbers as scikit-learn's own trees compare them: in 32 bits, and refused when they are infinite or missing."""

    missing: bool
    """NaN is allowed."""

    def apply(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The rounded matrix.

        Raises:
            ValueError: it holds what the original model refuses.
        """
        with np.errstate(over="ignore"):
            rounded = x.astype(np.float32).astype(np.float64)
        if np.isinf(rounded).any() or not (self.missing or np.isfinite(rounded).all()):
            raise ValueError("a model column is infinite, too large for 32 bits, or missing")
        return rounded


class Codes(msgspec.Struct, frozen=True):
    """Texts of a column as numbers, and the numbers of any other text, of None and of NaN; a number None = NaN."""

    known: dict[str, float]
    unknown: float | None
    none: float | None
    nan: float | None


class Plan(msgspec.Struct, frozen=True):
    """From model columns to the trees' matrix: which columns in which order, texts as codes, then steps in turn."""

    columns: list[int]
    codes: dict[int, Codes]
    steps: list[Scale | Fill | Single]
    softmax: bool = False
    """The trees give margins and the softmax is taken here: treelite's own is of 32 bits."""


class Trees:
    """A treelite checkpoint in memory, with the plan of what comes before it."""

    def __init__(self, plan: Plan, checkpoint: bytes) -> None:
        self.plan = plan
        self.tables = {at: {**one.known, None: one.none, NAN: one.nan} for at, one in plan.codes.items()}
        self.library = _library()
        self.handle, self.config = ctypes.c_void_p(), ctypes.c_void_p()
        self._call(
            "TreeliteDeserializeModelFromBytes", checkpoint, ctypes.c_size_t(len(checkpoint)), ctypes.byref(self.handle)
        )
        weakref.finalize(self, self.library.TreeliteFreeModel, self.handle)
        self._call("TreeliteGTILParseConfig", CONFIG % (b"raw" if plan.softmax else b"default"), ctypes.byref(self.config))
        weakref.finalize(self, self.library.TreeliteGTILDeleteConfig, self.config)
        kind, features = ctypes.c_char_p(), ctypes.c_size_t()
        self._call("TreeliteGetInputType", self.handle, ctypes.byref(kind))
        self._call("TreeliteQueryNumFeature", self.handle, ctypes.byref(features))
        self.kind = kind.value or b""
        self.dtype = np.dtype(self.kind.decode())
        shape, dimensions = ctypes.POINTER(ctypes.c_uint64)(), ctypes.c_uint64()
        one = ctypes.c_uint64(1)
        self._call(
            "TreeliteGTILGetOutputShape", self.handle, one, self.config, ctypes.byref(shape), ctypes.byref(dimensions)
        )
        self.width = int(np.prod(shape[: dimensions.value]))
        if features.value != len(plan.columns):
            raise ValueError(f"the trees take {features.value} columns, the plan gives {len(plan.columns)}")

    def predict(self, columns: list[Array]) -> NDArray[Any]:
        """Numbers [rows, width] of model columns; `width` is 1, or one a class."""
        plan = self.plan
        taken = [self._coded(at, columns[at]) if at in self.tables else columns[at] for at in plan.columns]
        x = matrix(taken)
        for step in plan.steps:
            x = step.apply(x)
        x = np.ascontiguousarray(x, self.dtype)
        found = np.empty((len(x), self.width), self.dtype)
        rows, given, out = ctypes.c_uint64(len(x)), ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(found.ctypes.data)
        self._call("TreeliteGTILPredict", self.handle, given, self.kind, rows, out, self.config)
        return _softmax(found) if plan.softmax else found

    def _coded(self, at: int, values: Array) -> list[float | None]:
        table, unknown = self.tables[at], self.plan.codes[at].unknown
        return [table.get(value if value == value else NAN, unknown) for value in values.tolist()]

    def _call(self, name: str, *arguments: Any) -> None:
        if getattr(self.library, name)(*arguments) != 0:
            raise ValueError(self.library.TreeliteGetLastError().decode(errors="replace"))


def _softmax(margins: NDArray[Any]) -> NDArray[np.float64]:
    powers = np.exp(margins - margins.max(axis=1, keepdims=True), dtype=np.float64)
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


@functools.cache
def _library() -> ctypes.CDLL:
    """treelite's C library, found without importing its package."""
    found = importlib.util.find_spec("treelite")
    if found is None or found.origin is None:
        raise Misconfigured("the model needs treelite, which is not installed", next='pip install "interlock[trees]"')
    library = ctypes.CDLL(str(Path(found.origin).parent / "lib" / "libtreelite.so"))
    library.TreeliteGetLastError.restype = ctypes.c_char_p
    return library


def load(files: Mapping[str, bytes]) -> Trees:
    """The trees of a package's verified files.

    Raises:
        Tampered: they hold none.
        Misconfigured: treelite is not installed.
    """
    try:
        return Trees(msgspec.json.decode(files[PLAN], type=Plan), files[FILE])
    except ValueError as error:
        raise Tampered(f"the compiled model cannot be read: {error}") from error


def predict(trees: Trees, task: Task, columns: list[Array]) -> NDArray[Any]:
    """What the trees give after a sigmoid or softmax."""
    return trees.predict(columns)
