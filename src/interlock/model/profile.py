"""The training profile: how every raw input and the score were spread, in bins that monitoring counts new rows into."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from interlock.model.columns import Array
from interlock.model.signature import Label, Signature

FILE = "profile.json"
FORMAT = 1
BINS = 10
TOP = 100


class Numeric(msgspec.Struct, frozen=True, tag="numeric"):
    """A number's distribution. `edges` are inner and rising (at most 9: equal ones are one); a value on an edge belongs
    to the bin below it, the outer bins are open. Moments are of the values that are not missing; None without any.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    missing: int
    n: int
    min: float | None
    max: float | None
    mean: float | None
    sd: float | None


class Values(msgspec.Struct, frozen=True, tag="values"):
    """Counts of the most frequent values (`bool` as `true` and `false`); `other` counts the rest of the known ones."""

    counts: dict[str, int]
    other: int
    missing: int
    n: int


class Profile(msgspec.Struct, frozen=True):
    """`inputs`: training rows, time stamps left out. `scores`: held-out rows, because a model flatters the rows that it
    was trained on; keys are `score`, `value`, or a class each. `classes`: shares of the training labels.
    """

    format: int
    inputs: dict[str, Numeric | Values]
    scores: dict[str, Numeric]
    classes: dict[str, float]


def build(signature: Signature, arrays: list[Array], labels: list[Label], numbers: NDArray[np.float64]) -> Profile:
    """The profile of training rows (`arrays`, `labels`) and of the numbers [rows, width] of held-out rows."""
    inputs: dict[str, Numeric | Values] = {}
    for spec, values in zip(signature.inputs, arrays, strict=True):
        if spec.type in ("float", "int"):
            inputs[spec.name] = numeric(values.astype(np.float64))
        elif spec.type != "timestamp":
            inputs[spec.name] = tally(values)
    names = {"binary": ("score",), "regression": ("value",), "multiclass": tuple(map(text, signature.classes))}
    scores = {name: numeric(numbers[:, at]) for at, name in enumerate(names[signature.task])}
    counts = Counter(labels) if signature.classes else Counter()
    return Profile(FORMAT, inputs, scores, {text(label): counts[label] / len(labels) for label in signature.classes})


def numeric(values: NDArray[np.float64]) -> Numeric:
    """Ten bins of equal frequency, and moments; NaN is missing."""
    known = values[~np.isnan(values)]
    if not len(known):
        return Numeric((), (0,), len(values), len(values), None, None, None, None)
    edges = np.unique(np.quantile(known, np.arange(1, BINS) / BINS))
    counts = np.bincount(np.searchsorted(edges, known, side="left"), minlength=len(edges) + 1)
    return Numeric(
        edges=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
        missing=len(values) - len(known),
        n=len(values),
        min=float(known.min()),
        max=float(known.max()),
        mean=float(known.mean()),
        sd=float(known.std()),
    )


def tally(values: Array) -> Values:
    """Counts of texts or truth values; None and NaN are missing."""
    counts = _texts(values)
    top = dict(sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:TOP])
    known = counts.total()
    return Values(top, known - sum(top.values()), len(values) - known, len(values))


def count(profile: Numeric | Values, values: Array) -> tuple[list[int], list[int]]:
    """The reference's counts and those of new values, in the same bins: the profile's, then other or new, then missing.

    The last bin of both is "missing"; the bin before it, of `Values`, is everything that is none of the top values.
    """
    if isinstance(profile, Numeric):
        floats = values.astype(np.float64)
        numbers = floats[~np.isnan(floats)]
        found = np.bincount(np.searchsorted(profile.edges, numbers, side="left"), minlength=len(profile.counts))
        return [*profile.counts, profile.missing], [*found.tolist(), len(floats) - len(numbers)]
    counts = _texts(values)
    top = [counts[name] for name in profile.counts]
    known = counts.total()
    return (
        [*profile.counts.values(), profile.other, profile.missing],
        [*top, known - sum(top), len(values) - known],
    )


def _texts(values: Array) -> Counter[str]:
    if values.dtype.kind == "f":  # nullable truth values
        values = values[~np.isnan(values)].astype(bool)
    counts = Counter(values.tolist())
    return Counter({text(value): count for value, count in counts.items() if value is not None})


def text(value: Any) -> str:
    """A category, truth value or label as the profile's key; truth values as `true` and `false`."""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    return str(value)


def encode(profile: Profile) -> bytes:
    """The bytes of `profile.json`."""
    return msgspec.json.encode(profile)


def decode(data: bytes) -> Profile:
    """Read `profile.json`."""
    return msgspec.json.decode(data, type=Profile)
