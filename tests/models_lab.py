"""A recipe's model checked and packaged as a run does it, from a table in memory: no warehouse, no jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from interlock.core.hashing import digest
from interlock.core.project import Project
from interlock.core.settings import Settings, Task
from interlock.model import package
from interlock.model.columns import Array
from interlock.model.features import extract_source, load_source
from interlock.model.frames import from_frame
from interlock.model.manifest import Author
from interlock.model.predictor import Predictor
from interlock.training.extract import ExtractRecord
from interlock.training.fit import Fitted, fit, signature_of
from interlock.training.load import Recipe
from interlock.training.packaging import Built, Made, build
from interlock.training.recipe import RecipeMark
from interlock.training.split import split
from interlock.training.table import read_table

ROWS = 240
Train = Callable[..., Any]


class Packaged:
    """A written package beside the model that it was made of."""

    def __init__(
        self, folder: Path, task: Task, train: Train, frame: pd.DataFrame, *, features: Any = None, **settings: Any
    ) -> None:
        self.log: list[str] = []
        inputs = {name: kind(frame[name]) for name in frame if name != "label"}
        extract = {"sql": "", "id": "id", "event_time": "at", "label": "label"}
        told = {"model": "tiny", "recipe": "r:t", "extract": extract, "inputs": inputs, "split": {"kind": "random"}}
        made = msgspec.convert(told | settings, Settings)
        times = pd.date_range("2030-01-01", periods=len(frame), freq="h", tz="UTC")
        self.table = read_table(
            frame.assign(id=[f"r{at}" for at in range(len(frame))], at=times), id="id", event_time="at", label="label"
        )
        source = extract_source(features)
        function = load_source(source.encode(), digest(source.encode()))
        parts = split(made.split, self.table.ids, self.table.times, None)
        recipe = Recipe(train, RecipeMark(task, features), "")
        signature = signature_of(made, task, self.table, parts)
        self.fitted: Fitted = fit(recipe, function, signature, self.table, parts, {}, self.log.append)
        record = ExtractRecord("", "", {}, "id", "at", "label", "sha256:0", 1, len(frame), ())
        self.built: Built = build(
            Project(folder), made, Made("run", recipe, source, {}, record, self.table, parts), self.fitted,
            Author("ann", "sha256:k"), self.log.append,
        )  # fmt: skip
        self.folder = folder / "package"
        self.folder.mkdir(parents=True)
        self.digest = package.write(self.folder, self.built.manifest, self.built.files)
        self.predictor = Predictor(package.verify(self.folder, self.digest))

    @property
    def arrays(self) -> list[Array]:
        """The raw rows."""
        return from_frame(self.fitted.signature.inputs, self.table.frame)


def kind(column: pd.Series[Any]) -> dict[str, Any]:
    """Settings of an input that may be missing."""
    return {"type": "float" if column.dtype.kind in "fi" else "category", "nullable": True}


def table(task: Task, *, texts: bool = False, rows: int = ROWS, seed: int = 3) -> pd.DataFrame:
    """Three numbers, now and then missing, and perhaps a text, that tell something of the label."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(rows, 3)).round(2), columns=["a", "b b", "c"])
    pull = frame["a"] + frame["b b"] * frame["c"]
    frame["c"] = frame["c"].where(rng.random(rows) > 0.1)
    if texts:
        frame["t"] = pd.Series(rng.choice(np.array(["x", "y", "z", None], object), rows), dtype=object)
        pull = pull + (frame["t"] == "x")
    noisy = pull + rng.normal(size=rows) / 2
    labels = {
        "regression": noisy,
        "binary": np.where(noisy > 0, "left", "stayed"),
        "multiclass": np.array(["low", "mid", "top"])[np.digitize(noisy, [-0.6, 0.6])],
    }
    return frame.assign(label=labels[task])
