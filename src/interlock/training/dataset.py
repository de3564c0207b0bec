"""What a recipe is given to learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import pandas as pd


class Rows(msgspec.Struct, frozen=True):
    """Model columns (the feature function's output only) and labels of the same rows."""

    features: pd.DataFrame
    label: pd.Series[Any]


class Dataset(msgspec.Struct, frozen=True):
    """Training rows, and validation rows for early stopping or calibration. No recipe sees the held-out test rows."""

    features: pd.DataFrame
    label: pd.Series[Any]
    validation: Rows
    params: dict[str, Any]
    """The recipe's keyword arguments as this run calls it."""
