"""What was said for what was true, and the rows about which two versions disagree most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from interlock.core.settings import Task
from interlock.evaluation.metrics import Array, labels

MAX_CLASSES = 30
MAX_ROWS = 20
Table = tuple[tuple[int, ...], ...]


class Confusion(Struct, frozen=True):
    """Rows by true class (outer) and class said (inner), in the order of `classes`; `champion`: the other version's."""

    classes: tuple[str, ...]
    counts: Table
    champion: Table | None = None


class Disagreement(Struct, frozen=True):
    """A row by its id, its true label, and of each version the label it gave and its number: the score, the probability
    of the label it gave, or the value. `apart`: how far the answers are apart, 0 to 1 for probabilities.
    """

    id: str
    label: str
    said: str
    number: float
    champion_said: str
    champion_number: float
    apart: float


def confusion(
    task: Task, classes: Sequence[str], y: Array, ours: Array, other: Array | None, threshold: float
) -> Confusion | None:
    """Of a classifier; None for regression. Beyond 30 classes the rarer ones are one, `(other)`."""
    if task == "regression":
        return None
    names, place = list(classes), np.arange(len(classes))
    if len(names) > MAX_CLASSES:
        frequent = np.sort(
            np.argsort(-np.bincount(y.astype(np.int64), minlength=len(names)), kind="stable")[: MAX_CLASSES - 1]
        )
        place = np.full(len(names), len(frequent))
        place[frequent] = np.arange(len(frequent))
        names = [names[at] for at in frequent] + ["(other)"]

    def table(output: Array) -> Table:
        cells = place[y.astype(np.int64)] * len(names) + place[labels(task, output, threshold).astype(np.int64)]
        counts = np.bincount(cells, minlength=len(names) ** 2).reshape(len(names), -1)
        return tuple(map(tuple, counts.tolist()))

    return Confusion(tuple(names), table(ours), None if other is None else table(other))


def disagreements(
    task: Task, classes: Sequence[str], ids: Array, y: Array, ours: Array, other: Array, threshold: float
) -> list[Disagreement]:
    """Up to 20 rows whose answers differ most, the largest first: by the difference of scores or values, for several
    classes by the total variation distance.
    """
    apart = np.abs(ours - other) if task != "multiclass" else np.abs(ours - other).sum(axis=1) / 2
    most = [row for row in np.argsort(-apart, kind="stable")[:MAX_ROWS].tolist() if apart[row] > 0]

    def answer(output: Array, row: int) -> tuple[str, float]:
        if task == "regression":
            return f"{output[row]:.6g}", float(output[row])
        said = int(labels(task, output[row : row + 1], threshold)[0])
        return classes[said], float(output[row] if task == "binary" else output[row, said])

    return [
        Disagreement(
            str(ids[row]),
            classes[int(y[row])] if classes else f"{y[row]:.6g}",
            *answer(ours, row),
            *answer(other, row),
            float(apart[row]),
        )
        for row in most
    ]
