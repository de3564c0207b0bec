"""ONNX models: a graph that takes all model columns as one tensor, or one tensor [rows, 1] a column by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from interlock.core.errors import RecipeFailed, Tampered
from interlock.core.settings import Task
from interlock.model.columns import Array
from interlock.model.runtimes.interface import Described, Stored, library, matrix

FILE = "model/model.onnx"
LIBRARIES: tuple[str, ...] = ("numpy", "onnxruntime")
RTOL = 1e-5
"""Most graphs compute in 32 bits."""
FRAME = False
DTYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
    "tensor(string)": object,
}


class Graph(msgspec.Struct, frozen=True):
    """A loaded graph: its session, type by input, and the one output that is asked for."""

    session: Any
    inputs: dict[str, Any]
    output: str


def describe(model: Any, task: Task) -> Described:
    """The names of the columns, where the graph takes them one by one."""
    inputs = _opened(model).inputs
    return Described(list(inputs) if len(inputs) > 1 else None)


def dump(model: Any, requirements: tuple[str, ...] = ()) -> Stored:
    """The bytes of the graph."""
    return Stored({FILE: model if isinstance(model, bytes) else model.SerializeToString()})


def load(files: Mapping[str, bytes]) -> Graph:
    """A session over the graph, computing by one thread."""
    runtime = library("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised too
    try:
        session = runtime.InferenceSession(files[FILE], options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise Tampered(f"the model file cannot be read: {error}") from error
    outputs = [one.name for one in session.get_outputs() if one.type in ("tensor(float)", "tensor(double)")]
    strange = [one.type for one in session.get_inputs() if one.type not in DTYPES]
    if strange or len(outputs) != 1:
        found = f"an input of type {strange[0]}" if strange else f"{len(outputs)} outputs of real numbers"
        raise RecipeFailed(
            f"the ONNX graph has {found}, where one output and {', '.join(DTYPES)} are known",
            next='scikit-learn models: convert with options={"zipmap": False}',
        )
    return Graph(session, {one.name: DTYPES[one.type] for one in session.get_inputs()}, outputs[0])


def predict(model: Any, task: Task, columns: list[Array]) -> NDArray[Any]:
    """The graph's one output of real numbers; probabilities must be in the order of the signature's classes."""
    graph = model if isinstance(model, Graph) else _opened(model)
    if len(graph.inputs) == 1:
        ((name, dtype),) = graph.inputs.items()
        feed = {name: matrix(columns, dtype)}
    else:
        named = zip(graph.inputs.items(), columns, strict=True)
        feed = {name: column.astype(dtype).reshape(-1, 1) for (name, dtype), column in named}
    return np.asarray(graph.session.run([graph.output], feed)[0])


def _opened(model: Any) -> Graph:
    return load(dump(model).files)
