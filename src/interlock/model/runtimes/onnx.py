"""ONNX graphs: all model columns come as one tensor, or each as a tensor [rows, 1] of its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interlock.core.errors import RecipeFailed, Tampered
from interlock.core.settings import Task
from interlock.model.columns import Array
from interlock.model.runtimes.interface import Stored, library, matrix

FILE = "model/model.onnx"
LIBRARIES: tuple[str, ...] = ("numpy", "onnxruntime")
RTOL = 1e-5  # most graphs compute in 32 bits
FRAME = False
DTYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
    "tensor(string)": object,
}


def dump(model: Any, requirements: tuple[str, ...] = ()) -> Stored:
    """The bytes of the graph; its probabilities must be in the order of the signature's classes."""
    files = {FILE: model if isinstance(model, bytes) else model.SerializeToString()}
    try:
        session = load(files)
    except Tampered as error:
        raise RecipeFailed(f"the recipe's ONNX graph cannot be read: {error.message}") from error
    strange = [one.type for one in session.get_inputs() if one.type not in DTYPES]
    if strange or len(_numbers(session)) != 1:
        found = f"an input of type {strange[0]}" if strange else f"{len(_numbers(session))} outputs of real numbers"
        raise RecipeFailed(
            f"the ONNX graph has {found}, where one output and inputs of type {', '.join(DTYPES)} can be served",
            next='scikit-learn models: convert with options={"zipmap": False}',
        )
    names = [one.name for one in session.get_inputs()]
    return Stored(files, names if len(names) > 1 else None)


def load(files: Mapping[str, bytes]) -> Any:
    """A session over the graph, of one thread."""
    runtime = library("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised too
    try:
        return runtime.InferenceSession(files[FILE], options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise Tampered(f"the model file cannot be read: {error}") from error


def predict(model: Any, task: Task, columns: list[Array]) -> NDArray[Any]:
    """The graph's one output of real numbers."""
    inputs = [(one.name, DTYPES[one.type]) for one in model.get_inputs()]
    if len(inputs) == 1:
        feed = {inputs[0][0]: matrix(columns, inputs[0][1])}
    else:
        feed = {
            name: column.astype(dtype).reshape(-1, 1) for (name, dtype), column in zip(inputs, columns, strict=True)
        }
    return np.asarray(model.run(_numbers(model), feed)[0])


def _numbers(session: Any) -> list[str]:
    return [one.name for one in session.get_outputs() if one.type in ("tensor(float)", "tensor(double)")]
