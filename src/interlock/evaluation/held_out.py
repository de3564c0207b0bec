"""The rows by which a version is judged: held out of its own extract, and unknown to the version beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from interlock.model.manifest import Manifest
from interlock.training.table import Table, parts_of

if TYPE_CHECKING:
    import pandas as pd


class HeldOut(msgspec.Struct, frozen=True):
    """Test rows, and the training rows, by whose labels a dummy would answer.

    `left_out`: held-out rows that are missing here because the other version was trained on them.
    """

    table: Table
    train: Table
    left_out: int


def held_out(
    manifest: Manifest, frame: pd.DataFrame, against: Manifest | None = None, other: pd.DataFrame | None = None
) -> HeldOut:
    """The rows of a version's extract `frame`; with `against` those that it was not trained on either.

    The ids of its own extract `other` tell which; there may be none left.

    Raises:
        InvalidData: the extract gives another split.
    """
    parts = parts_of(manifest, frame)
    test, left_out = parts["test"], 0
    if against is not None and other is not None:
        theirs = parts_of(against, other)
        known = {*theirs["train"].ids, *theirs["validation"].ids}
        unknown = np.flatnonzero([one not in known for one in test.ids])
        left_out = len(test) - len(unknown)
        test = test.take(unknown)
    return HeldOut(test, parts["train"], left_out)
