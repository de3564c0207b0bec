"""`manifest.json`: everything a package says of itself. Its canonical bytes are the package's identity."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from interlock.core.settings import Name
from interlock.model.signature import Label, Signature

FORMAT = 1
RuntimeName = Literal["sklearn", "xgboost", "lightgbm", "onnx", "predictor"]


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of the package."""

    path: str
    size: int
    digest: str


class Compiled(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The trees in the form that answers faster; it gave the same answers to all held-out rows."""

    file: str
    speedup_1: float
    speedup_64: float
    """How many times as fast as the original, with 1 and with 64 rows a call; measured when it was packaged."""


class Runtime(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What loads the model."""

    name: RuntimeName
    file: str
    types: tuple[str, ...] = ()
    """Types beyond the loader's own list that the file needs; each is on the runtime's allow-list."""
    classes: tuple[Label, ...] = ()
    """Labels in the order of the model's own probabilities; empty: the signature's order."""
    code: str = ""
    """The model is this file of the project's own code, which the model server runs; empty: it is data."""
    compiled: Compiled | None = None


class Author(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who trained it."""

    name: str
    keyid: str


class SplitRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the rows were parted; `digest` is over the ids of every part."""

    kind: Literal["time", "group", "random"]
    seed: int
    digest: str
    rows: dict[str, int]
    boundaries: dict[str, str] = {}
    """`time`: the first event time of validation and of test."""
    validation: float = 0.1
    test: float = 0.2
    group: str = ""
    """Column whose values stay together, and the cluster of paired intervals; empty = none."""


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a model that was trained elsewhere was taken from; the manifest's author is who took it."""

    source: str
    """The directory or `mlflow:` URI as it was given."""
    digest: str
    """Of the directory's `saved.json`, or of MLflow's model file."""
    server: str = ""
    """MLflow's address, without credentials."""
    name: str = ""
    version: str = ""
    """Model and version in MLflow's registry; empty: it is in none."""


class Lineage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the model comes from."""

    run: str
    extract: str
    """Name of the extract; empty = the default one."""
    sql: str
    variables: dict[str, Any]
    snapshot: int
    extract_digest: str
    split: SplitRecord
    recipe: str
    recipe_digest: str
    features_digest: str
    parameters: dict[str, Any]
    git_commit: str | None
    sources: tuple[str, ...] = ()
    """Warehouse tables the extract reads."""
    id: str = ""
    event_time: str = ""
    label: str = ""
    """Columns of the extract: with the split they say which rows were held out."""
    origin: Origin | None = None
    """The model is registered, not trained here: nobody knows which rows it was trained on."""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole manifest."""

    format: int
    model: Name
    signature: Signature
    runtime: Runtime
    feature_columns: tuple[str, ...]
    threshold: float
    """The project's THRESHOLD when it was built: what a model server alone derives labels with."""
    rtol: float
    """Relative tolerance of numbers between training and serving; labels are compared exactly."""
    python: str
    libraries: dict[str, str]
    author: Author
    created: str
    lineage: Lineage
    files: tuple[FileEntry, ...]
