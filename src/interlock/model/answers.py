"""From a model's numbers to what the client reads: score and label, probabilities, or a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from interlock.model.signature import Label, Signature

if TYPE_CHECKING:
    from interlock.model.columns import Array


class Answer(msgspec.Struct, frozen=True):
    """The outputs of a request's rows by name, in the signature's order; lists of the same length."""

    outputs: dict[str, list[Any]]

    def records(self) -> list[dict[str, Any]]:
        """One object a row, as the invocations route answers."""
        names = list(self.outputs)
        return [dict(zip(names, row, strict=True)) for row in zip(*self.outputs.values(), strict=True)]


def derive(signature: Signature, numbers: list[float], threshold: float) -> Answer:
    """Outputs from the model's numbers, row after row (`signature.width` each).

    Binary: `label` is the positive class where `score >= threshold`. Multiclass: the first of the largest probabilities.
    """
    if signature.task == "regression":
        return Answer({"value": numbers})
    if signature.task == "binary":
        negative, positive = signature.classes
        return Answer({"score": numbers, "label": [positive if score >= threshold else negative for score in numbers]})
    width = signature.width
    rows = [numbers[at : at + width] for at in range(0, len(numbers), width)]
    labels: list[Label] = [signature.classes[row.index(max(row))] for row in rows]
    return Answer({"label": labels, "probabilities": rows})


def label_codes(signature: Signature, numbers: Array, threshold: float) -> Array:
    """The labels that `derive` gives as positions in `signature.classes`, from numbers [rows, width]; regression: zeros."""
    if signature.task == "binary":
        return (numbers[:, 0] >= threshold).astype(int)
    labels: Array = numbers.argmax(axis=1)
    return labels
