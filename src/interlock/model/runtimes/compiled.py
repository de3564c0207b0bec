"""Compiled tree models: columns to a matrix by plain numpy, trees by LightGBM's C library; nothing else is imported.

LightGBM's Python package would import scipy (a fifth of a second, 22 MB), so its documented C functions are called directly.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import weakref
from collections.abc import Mapping
from ctypes import byref, c_void_p
from pathlib import Path
from typing import Any, Literal, assert_never

import msgspec
import numpy as np
from numpy.typing import NDArray

from interlock.core.errors import Misconfigured, Tampered
from interlock.core.settings import Task
from interlock.model.columns import Array
from interlock.model.runtimes.interface import matrix

FILE = "model/compiled.txt"
PLAN = "model/compiled.json"
LIBRARIES: tuple[str, ...] = ("lightgbm", "numpy")
FRAME = False
NAN = float("nan")
"""The one key that finds NaN in a dict."""


RAW_SCORE, ROW_MAJOR, ALL_TREES = 1, 1, -1
SINGLE, DOUBLE = 0, 1
"""LightGBM's names for the types of a matrix."""
OPTIONS = b"num_threads=1"
LARGEST = 709.0
"""Whose exponential is a number yet."""
TINY = 2e-35
"""LightGBM takes numbers of up to half of this for zero."""
QUIET = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(lambda message: None)
"""Takes what the library says: what fails is raised too."""
Kind = Literal["subtract", "divide", "fill", "single", "known"]
Then = Literal["nothing", "sigmoid", "softmax", "exp"]


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
    """From model columns to the trees' matrix (which columns in which order, texts as codes, then steps in turn; `single`:
    in 32 bits), and from the sums of their leaves to numbers: divided by `divided`, plus `base`, then a function.
    """

    columns: list[int]
    codes: dict[int, Codes]
    steps: list[Step]
    single: bool = False
    lifted: bool = False
    """Whether the smallest numbers count: of a model of LightGBM's own they do not."""
    base: tuple[float, ...] = (0.0,)
    """A number for each output."""
    divided: int = 1
    then: Then = "sigmoid"
    alpha: float = 1.0
    """The factor within the sigmoid."""


class Trees:
    """A LightGBM model in memory, with its plan."""

    def __init__(self, plan: Plan, text: bytes) -> None:
        self.plan = plan
        self.steps = [(step.kind, np.array(step.values)) for step in plan.steps]
        self.tables = {at: {**one.known, None: one.none, NAN: one.nan} for at, one in plan.codes.items()}
        self.as_they_come = not self.tables and plan.columns == list(range(len(plan.columns)))
        self.base = np.array(plan.base)
        self.library = _library()
        self.handle, rounds = c_void_p(), ctypes.c_int()
        self._call("LGBM_BoosterLoadModelFromString", text, byref(rounds), byref(self.handle))
        weakref.finalize(self, self.library.LGBM_BoosterFree, self.handle)
        self.kind, self.length, self.fast = SINGLE if plan.single else DOUBLE, ctypes.c_int64(), c_void_p()
        wanted = (RAW_SCORE, 0, ALL_TREES, self.kind, ctypes.c_int32(len(plan.columns)), OPTIONS)
        self._call("LGBM_BoosterPredictForMatSingleRowFastInit", self.handle, *wanted, byref(self.fast))
        weakref.finalize(self, self.library.LGBM_FastConfigFree, self.fast)
        width, features = ctypes.c_int(), ctypes.c_int()
        self._call("LGBM_BoosterGetNumClasses", self.handle, byref(width))
        self._call("LGBM_BoosterGetNumFeature", self.handle, byref(features))
        if (width.value, features.value) != (len(plan.base), len(plan.columns)):
            raise ValueError(f"{features.value} columns and {width.value} outputs do not fit the plan")

    def predict(self, columns: list[Array]) -> NDArray[Any]:
        """Numbers [rows, width] of model columns."""
        plan = self.plan
        given: Any = columns
        if not self.as_they_come:
            given = [self._coded(at, columns[at]) if at in self.tables else columns[at] for at in plan.columns]
        x = matrix(given)
        for kind, values in self.steps:
            x = _done(kind, values, x)
        x = np.ascontiguousarray(x, np.float32 if plan.single else np.float64)
        if plan.lifted:
            x = _lifted(x)
        found = np.empty((len(x), len(plan.base)))
        rows, length, out = c_void_p(x.ctypes.data), byref(self.length), c_void_p(found.ctypes.data)
        if len(x) == 1:
            self._call("LGBM_BoosterPredictForMatSingleRowFast", self.fast, rows, length, out)
        else:
            shape, which = map(ctypes.c_int32, x.shape), (ROW_MAJOR, RAW_SCORE, 0, ALL_TREES)
            self._call("LGBM_BoosterPredictForMat", self.handle, rows, self.kind, *shape, *which, OPTIONS, length, out)
        return _then(plan, found / plan.divided + self.base)

    def _coded(self, at: int, values: Array) -> list[float | None]:
        table, unknown = self.tables[at], self.plan.codes[at].unknown
        return [table.get(value if value == value else NAN, unknown) for value in values.tolist()]

    def _call(self, name: str, *arguments: Any) -> None:
        if getattr(self.library, name)(*arguments) != 0:
            raise ValueError(self.library.LGBM_GetLastError().decode(errors="replace"))


@functools.cache
def _library() -> ctypes.CDLL:
    """LightGBM's C library, which then says nothing by itself.

    Raises:
        Misconfigured: it is not installed, or what it needs of the system is not.
    """
    found = importlib.util.find_spec("lightgbm")
    if found is None or found.origin is None:
        raise Misconfigured("the model needs lightgbm, which is not installed", next='pip install "interlock[trees]"')
    try:
        library = ctypes.CDLL(str(next(Path(found.origin).parent.glob("lib/lib_lightgbm.*"))))
    except OSError as error:
        raise Misconfigured(f"LightGBM's library cannot be loaded: {error}", next="apt install libgomp1") from error
    library.LGBM_GetLastError.restype = ctypes.c_char_p
    library.LGBM_RegisterLogCallback(QUIET)
    return library


def _lifted(x: NDArray[Any]) -> NDArray[Any]:
    """Numbers so near to zero that LightGBM would take them for it, moved just beyond, where no threshold is."""
    small = np.abs(x) < TINY
    return np.where(small & (x != 0), np.copysign(x.dtype.type(TINY), x), x) if small.any() else x


def _then(plan: Plan, sums: NDArray[np.float64]) -> NDArray[np.float64]:
    match plan.then:
        case "sigmoid":
            return np.asarray(1 / (1 + np.exp(np.minimum(-plan.alpha * sums, LARGEST))))
        case "exp":
            with np.errstate(over="ignore"):
                return np.asarray(np.exp(sums))
        case "softmax":
            powers = np.exp(sums - sums.max(axis=1, keepdims=True))
            return np.asarray(powers / powers.sum(axis=1, keepdims=True))
        case "nothing":
            return sums
        case _:
            assert_never(plan.then)


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
