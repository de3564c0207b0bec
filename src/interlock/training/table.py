"""The rows of an extract as training and evaluation use them: raw columns, ids, times, labels, groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from interlock.core.errors import InvalidData
from interlock.core.settings import Task
from interlock.model.columns import Array
from interlock.model.frames import from_frame
from interlock.model.manifest import Manifest
from interlock.model.signature import Input, Label, Signature
from interlock.training.split import settings_of, split

if TYPE_CHECKING:
    import pandas as pd


class Table(msgspec.Struct, frozen=True):
    """Rows in one order: `frame` and `labels` as extracted, `ids` and `groups` as texts, `times` in microseconds."""

    frame: pd.DataFrame
    ids: Array
    times: Array
    labels: pd.Series[Any]
    groups: Array | None

    def take(self, rows: Array) -> Table:
        """These rows only."""
        return Table(
            frame=self.frame.iloc[rows].reset_index(drop=True),
            ids=self.ids[rows],
            times=self.times[rows],
            labels=self.labels.iloc[rows].reset_index(drop=True),
            groups=None if self.groups is None else self.groups[rows],
        )

    def __len__(self) -> int:
        return len(self.ids)


def read_table(frame: pd.DataFrame, *, id: str, event_time: str, label: str, group: str = "") -> Table:
    """The rows of an extract whose columns of those names are what they should be.

    Raises:
        InvalidData: a column is missing, an id comes twice, or an id, a time or a label is null.
    """
    for what, name in (("id", id), ("event_time", event_time), ("label", label), ("group", group)):
        if name and name not in frame.columns:
            raise InvalidData(
                f"the extract has no column {name}, which [extract] names as {what}",
                next=f"it has {', '.join(map(str, frame.columns))}",
            )
        nulls = int(frame[name].isna().sum()) if name and what != "group" else 0
        if nulls:
            raise InvalidData(
                f"{what} {name} is null in {nulls} of {len(frame)} rows",
                next=f"leave them out: WHERE {name} IS NOT NULL",
            )
    if not len(frame):
        raise InvalidData("the extract has no rows", next="look at the source: interlock data head TABLE")
    ids = frame[id].astype(str).to_numpy(object)
    twice = frame[id][frame[id].duplicated()]
    if len(twice):
        raise InvalidData(
            f"id {id} is not unique: {twice.iloc[0]!r} comes more than once ({len(twice)} such rows)",
            next="make it of more columns in the SQL",
        )
    (times,) = from_frame((Input(event_time, "timestamp"),), frame)
    groups = frame[group].astype(str).where(frame[group].notna(), ids).to_numpy(object) if group else None
    return Table(frame, ids, times, frame[label], groups)


def classes_of(task: Task, labels: pd.Series[Any], positive: Label | None) -> tuple[Label, ...]:
    """The label's values: binary `(negative, positive)`, multiclass rising, regression none.

    Raises:
        InvalidData: the labels do not fit the task.
    """
    if task == "regression":
        return ()
    values: list[Label] = sorted(labels.unique().tolist())
    if len({type(value) for value in values}) != 1 or not isinstance(values[0], str | int | float | bool):
        raise InvalidData(f"labels of type {labels.dtype} are no classes", next="cast them to text or whole numbers")
    if task == "multiclass":
        return tuple(values)
    if len(values) != 2:
        shown = ", ".join(map(repr, values[:5]))
        raise InvalidData(
            f'the label has {len(values)} values ({shown}), a task "binary" two',
            next='say task="multiclass" or task="regression" in @recipe, or derive a yes or no in the SQL',
        )
    if positive is None:
        return tuple(values)
    if positive not in values:
        raise InvalidData(
            f"positive = {positive!r} is no value of the label ({values[0]!r}, {values[1]!r})",
            next="set it in interlock.toml",
        )
    return tuple(sorted(values, key=lambda value: value == positive))


def codes_of(signature: Signature, labels: pd.Series[Any]) -> Array:
    """Labels as metrics want them: the class's number, or the value itself (regression).

    Raises:
        InvalidData: a label is none of the signature's classes, or no number.
    """
    if signature.task == "regression":
        try:
            numbers: Array = labels.to_numpy(np.float64)
        except (TypeError, ValueError) as error:
            raise InvalidData(f"labels of type {labels.dtype} are no numbers: {error}") from error
        return numbers
    codes = {label: at for at, label in enumerate(signature.classes)}
    strangers = [label for label in labels.unique().tolist() if label not in codes]
    if strangers:
        raise InvalidData(f"label {strangers[0]!r} is none of {', '.join(map(repr, signature.classes))}")
    return np.array([codes[label] for label in labels.tolist()], np.int64)


def parts_of(manifest: Manifest, frame: pd.DataFrame) -> dict[str, Table]:
    """A version's own rows by part (train, validation, test), from its extract.

    Raises:
        InvalidData: the extract is not the one that the manifest's split parted.
    """
    lineage = manifest.lineage
    table = read_table(
        frame, id=lineage.id, event_time=lineage.event_time, label=lineage.label, group=lineage.split.group
    )
    found = split(settings_of(lineage.split), table.ids, table.times, table.groups)
    if found.record.digest != lineage.split.digest:
        raise InvalidData(f"the extract {lineage.extract_digest} does not give the split {lineage.split.digest} again")
    return {name: table.take(rows) for name, rows in found.parts.items()}
