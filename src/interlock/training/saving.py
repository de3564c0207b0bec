"""`interlock.save`: a model that was trained elsewhere, as a directory that can be looked at, verified and registered.

`saved.json` (canonical JSON) lists every other file with its digest: the model in its library's own format, the feature
function's source, the sample rows with the model's own answers, and the versions of what it was trained with.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from interlock.core.clock import SystemClock, iso
from interlock.core.errors import Conflict, InvalidData, RecipeFailed, Usage
from interlock.core.hashing import canonical, digest
from interlock.core.settings import Name, Task
from interlock.model import features, golden
from interlock.model.frames import from_frame, to_columns, to_frame
from interlock.model.manifest import FileEntry, RuntimeName
from interlock.model.package import entries, write_files
from interlock.model.runtimes import RUNTIMES, runtime_of
from interlock.model.runtimes.interface import classes_of
from interlock.model.signature import Input, Label, Signature
from interlock.training.fit import Fitted, checked
from interlock.training.packaging import PROOF_ROWS, pins

if TYPE_CHECKING:
    import pandas as pd

INDEX = "saved.json"
FORMAT = 1


class Saved(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`saved.json`. `classes`: labels in the order of the model's probabilities; empty: it does not know them."""

    format: int
    name: Name
    task: Task
    classes: tuple[Label, ...]
    inputs: tuple[Input, ...]
    """The sample's columns, as they look."""
    columns: tuple[str, ...]
    """What the feature function makes of them."""
    runtime: RuntimeName
    created: str
    files: tuple[FileEntry, ...]


def save(
    model: Any, name: str, sample: Any, task: Task | None, label: str,
    function: Callable[[Any], Any] | None, folder: Path,
) -> Path:  # fmt: skip
    """As `interlock.save` says."""
    try:
        msgspec.convert(name, Name)
    except msgspec.ValidationError:
        raise Usage(f"{name!r} cannot name a model", next='lower-case words with hyphens: "flight-delay"') from None
    frame = _rows(sample, label)
    inputs = _inputs(frame)
    source = features.extract_source(function).encode()
    fitted, known = _fitted(model, task, inputs, frame, features.load_source(source, digest(source)))
    arrays = from_frame(inputs, frame)
    numbers = _own_answers(model, fitted).predict(fitted.function, arrays)
    runtime = RUNTIMES[fitted.runtime]
    stored = msgspec.structs.replace(fitted.engine, model=runtime.load(fitted.stored.files))
    if not np.allclose(stored.predict(fitted.function, arrays), numbers, rtol=runtime.RTOL, atol=0.0):
        raise RecipeFailed(f"the {type(model).__name__} answers otherwise when it is stored and loaded again")
    needed = pins((*runtime.LIBRARIES, *features.ALWAYS))
    files = {
        **fitted.stored.files,
        features.FILE: source,
        golden.FILE: golden.encode(fitted.signature, arrays, numbers),
        "requirements.txt": "".join(f"{one}=={number}\n" for one, number in needed.items()).encode(),
    }
    columns = tuple(fitted.engine.columns)
    created = iso(SystemClock().now())
    index = Saved(FORMAT, name, fitted.signature.task, known, inputs, columns, fitted.runtime, created, entries(files))
    return _write(folder / name, {**files, INDEX: canonical(index)})


def _rows(sample: Any, label: str) -> pd.DataFrame:
    import pandas as pd

    if not isinstance(sample, pd.DataFrame) or not len(sample):
        raise Usage("sample is no DataFrame with rows", next="give raw rows: sample=X.head(100)")
    if not all(isinstance(name, str) for name in sample.columns) or sample.columns.has_duplicates:
        raise InvalidData("the columns of the sample are no distinct names", next='X.columns = ["amount", …]')
    if label and label not in sample:
        raise Usage(f"the sample has no column {label}, which label names")
    return sample.drop(columns=[label] if label else []).head(PROOF_ROWS).reset_index(drop=True)


def _inputs(frame: pd.DataFrame) -> tuple[Input, ...]:
    """What each raw column looks like; a project's `[inputs]` has the last word when the model is registered."""
    import pyarrow as pa

    from interlock.training.guess import inputs_of

    found = inputs_of(pa.Table.from_pandas(frame, preserve_index=False))
    for one in found:
        if one.type == "timestamp" and getattr(frame[one.name].dtype, "tz", None) is None:
            mend = f'X["{one.name}"] = pd.to_datetime(X["{one.name}"]).dt.tz_localize("UTC")'
            raise InvalidData(f"the times in {one.name} have no zone", next=mend)
    return tuple(Input(one.name, one.type, one.nullable) for one in found)


def _fitted(
    model: Any, task: Task | None, inputs: tuple[Input, ...], frame: pd.DataFrame, function: features.Function
) -> tuple[Fitted, tuple[Label, ...]]:
    """The model checked against the sample's first row, and the labels that it knows."""
    name, known = runtime_of(model), tuple(classes_of(model) or ())
    task = task or _task(model, known)
    row = from_frame(inputs, frame.head(1))
    made = function(to_frame(inputs, row))
    classes = () if task == "regression" else known or (0, 1)
    if task == "multiclass" and not known:  # what it answers tells how many there are
        runtime = RUNTIMES[name]
        columns = made if runtime.FRAME else to_columns(made, list(made.columns))
        loaded = model if runtime.FRAME else runtime.load(runtime.dump(model).files)
        classes = tuple(range(np.asarray(runtime.predict(loaded, task, columns)).reshape(1, -1).shape[1]))
    return checked(model, function, Signature(task, inputs, classes), list(map(str, made.columns)), row), known


def _task(model: Any, known: tuple[Label, ...]) -> Task:
    if known:
        return "binary" if len(known) == 2 else "multiclass"
    if hasattr(model, "fit") and runtime_of(model) != "predictor":
        return "regression"
    raise Usage(
        f"a {type(model).__name__} does not tell its task", next='say task="binary", "multiclass" or "regression"'
    )


def _own_answers(model: Any, fitted: Fitted) -> Any:
    """What asks the very object that was given: wrappers of boosters by their scikit-learn interface."""
    if hasattr(model, "fit") and not fitted.engine.runtime.FRAME:
        return msgspec.structs.replace(fitted.engine, runtime=RUNTIMES["sklearn"], model=model)
    return fitted.engine


def _write(target: Path, files: dict[str, bytes]) -> Path:
    if target.exists() and not (target / INDEX).is_file():
        raise Conflict(f"{target} is there and was not made by interlock.save", next="remove it, or say folder=")
    target.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    made.chmod(0o755)
    write_files(made, files)
    if target.exists():
        shutil.rmtree(target)
    os.rename(made, target)
    return target
