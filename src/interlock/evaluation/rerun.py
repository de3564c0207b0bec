"""A logged answer, given again: the stored package in a model server of its own, the logged inputs, the threshold of then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from interlock.core.clock import to_us
from interlock.core.errors import Conflict
from interlock.evaluation.codecs import CODECS
from interlock.evaluation.proof import offline_server, relative_difference
from interlock.model.answers import derive
from interlock.model.manifest import Manifest
from interlock.model.signature import Signature

Row = Mapping[str, Any]
CODEC = "oip-json"
SOURCE = {"binary": "score", "multiclass": "probabilities", "regression": "value"}
"""The output that holds a model's numbers, by task."""


class Difference(msgspec.Struct, frozen=True):
    """One output of one row that came out otherwise."""

    row: int
    output: str
    logged: Any
    again: Any


class Rerun(msgspec.Struct, frozen=True):
    """How the answer came out: labels equal exactly, numbers within `rtol`."""

    reproduced: bool
    rows: int
    threshold: float
    rtol: float
    differences: tuple[Difference, ...]


def rerun(package: Path, manifest: Manifest, inputs: Sequence[Row], logged: Sequence[Row], threshold: float) -> Rerun:
    """Ask a model server of the package about logged rows: `inputs` by name as they were logged, `logged` its outputs.

    Raises:
        Conflict: inputs were not logged.
        RecipeFailed: the package gives other answers than at its packaging, even to its own golden rows.
    """
    signature = manifest.signature
    columns = [_column(signature, at, inputs) for at in range(len(signature.inputs))]
    with offline_server(package) as server:
        server.wait()
        answers = list(CODECS[CODEC](server.socket, manifest, columns))
    numbers = np.array([value for one in answers for value in one.outputs[SOURCE[signature.task]]], np.float64)
    again = derive(signature, numbers.ravel().tolist(), threshold).records()
    differences = tuple(
        Difference(row, name, was[name], value)
        for row, (was, now) in enumerate(zip(logged, again, strict=True))
        for name, value in now.items()
        if not _same(name, was[name], value, manifest.rtol)
    )
    return Rerun(not differences, len(again), threshold, manifest.rtol, differences)


def _column(signature: Signature, at: int, inputs: Sequence[Row]) -> list[Any]:
    """A raw input's logged values as a client would send them."""
    spec = signature.inputs[at]
    if any(spec.name not in row or (row[spec.name] is None and not spec.nullable) for row in inputs):
        raise Conflict(f"the input {spec.name} of this prediction was not logged, so it cannot be asked again")
    return [to_us(value) if isinstance(value := row[spec.name], datetime) else value for row in inputs]


def _same(name: str, logged: Any, again: Any, rtol: float) -> bool:
    if name == "label" or logged is None:
        return bool((logged, type(logged)) == (again, type(again)))
    return bool(relative_difference([logged], [again])[0] <= rtol)
