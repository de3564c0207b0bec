"""What a model takes and gives: raw inputs with logical types, outputs by task, and the wire datatype of each."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import msgspec

from interlock.core.settings import Logical, Task
from interlock.model.wire import LIMIT

Datatype = Literal["FP64", "INT64", "BOOL", "BYTES"]
Label = str | int | bool | float
ROWS, VALUES, ALWAYS = 50_000, 500_000, 1000
"""A request has at most so many rows, and so many values, those of its answer included; yet so many rows it always may have."""

WIRE: dict[Logical, Datatype] = {
    "float": "FP64",
    "int": "INT64",
    "bool": "BOOL",
    "string": "BYTES",
    "category": "BYTES",
    "timestamp": "INT64",
}


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One raw input."""

    name: str
    type: Logical
    nullable: bool = False
    unseen: Literal["allow", "refuse"] = "allow"
    categories: tuple[str, ...] = ()
    """`category`: the known values, declared or seen in training; empty = too many to list, nothing is unseen."""
    zone: str = "UTC"
    """`timestamp`: the IANA zone in which it reaches the feature function."""

    @property
    def datatype(self) -> Datatype:
        """The one datatype in which this input travels."""
        return WIRE[self.type]


class Output(msgspec.Struct, frozen=True):
    """One answer tensor."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """Raw inputs in their order, task, and the label's values.

    `classes`: binary `(negative, positive)`, multiclass in the order of the probabilities, regression empty.
    """

    task: Task
    inputs: tuple[Input, ...]
    classes: tuple[Label, ...] = ()
    layout: Literal["columns", "matrix"] = "columns"

    @property
    def label_datatype(self) -> Datatype:
        """The wire datatype of the label column."""
        first = self.classes[0]
        if isinstance(first, bool):
            return "BOOL"
        return "INT64" if isinstance(first, int) else "FP64" if isinstance(first, float) else "BYTES"

    @property
    def width(self) -> int:
        """Numbers a model gives for one row: 1 (score or value), or one probability a class."""
        return len(self.classes) if self.task == "multiclass" else 1

    @cached_property
    def most_rows(self) -> int:
        """As many rows a request may have: fewer than `ROWS` where its inputs and the model's numbers are many."""
        return min(max(ALWAYS, min(ROWS, VALUES // (len(self.inputs) + self.width))), self.rows_at_once)

    @cached_property
    def rows_at_once(self) -> int:
        """So many rows at the most have an answer that fits well into one message of a model server."""
        return max(1, LIMIT // 2 // (8 * self.width))

    @cached_property
    def numeric(self) -> bool:
        """Whether all inputs are `float`, and more than one: their rows travel and are logged as one buffer."""
        return len(self.inputs) > 1 and all(spec.type == "float" for spec in self.inputs)

    @cached_property
    def outputs(self) -> tuple[Output, ...]:
        """The answer tensors, `[-1]` a row."""
        if self.task == "regression":
            return (Output("value", "FP64", (-1,)),)
        label = Output("label", self.label_datatype, (-1,))
        if self.task == "binary":
            return (Output("score", "FP64", (-1,)), label)
        return (label, Output("probabilities", "FP64", (-1, self.width)))


def twins(names: list[str]) -> list[str]:
    """Names that are equal when lower-cased: the warehouse could not tell their columns apart."""
    seen: dict[str, str] = {}
    found = []
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            found.append(f"{other} and {name}")
    return found
