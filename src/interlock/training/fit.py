"""From a table to a model: features, the recipe's call, and the checks without which nothing is packaged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from interlock.core.errors import InterlockError, InvalidData, PredictionFailed, RecipeFailed
from interlock.core.settings import Settings
from interlock.model.columns import NAT, Array
from interlock.model.features import Function
from interlock.model.frames import from_frame, to_frame
from interlock.model.manifest import RuntimeName
from interlock.model.predictor import Engine
from interlock.model.runtimes import RUNTIMES, runtime_of
from interlock.model.signature import Input, Label, Signature, twins
from interlock.training.dataset import Dataset, Rows
from interlock.training.load import Log, Recipe, user_code
from interlock.training.split import Split
from interlock.training.table import Table, classes_of

if TYPE_CHECKING:
    import pandas as pd

MAX_CATEGORIES = 1000
"""An open category with more values than this is not listed: nothing counts as unseen."""
UNSEEN = "\N{REPLACEMENT CHARACTER} never seen"


class Fitted(msgspec.Struct, frozen=True):
    """A checked model that is not packaged yet."""

    runtime: RuntimeName
    engine: Engine
    function: Function

    @property
    def signature(self) -> Signature:
        """What the model takes and gives."""
        return self.engine.signature

    def predict(self, arrays: list[Array]) -> NDArray[np.float64]:
        """Numbers [rows, width] of raw rows."""
        return self.engine.predict(self.function, arrays)


def signature_of(settings: Settings, recipe: Recipe, table: Table, split: Split) -> Signature:
    """Raw inputs as `interlock.toml` declares them, known categories and classes as training rows hold them.

    Raises:
        InvalidData: names, layout, labels or columns do not fit.
    """
    clashes = twins(list(settings.inputs))
    if clashes:
        raise InvalidData(f"inputs {clashes[0]} differ only in case: the log could not tell them apart")
    inputs = []
    training = table.frame.iloc[split.parts["train"]]
    for name in settings.inputs:
        one = settings.input(name)
        categories = one.categories
        if one.type == "category" and not categories and name in training:
            seen = sorted(map(str, training[name].dropna().unique()))
            categories = tuple(seen) if len(seen) <= MAX_CATEGORIES else ()
        inputs.append(Input(name, one.type, one.nullable, one.unseen, categories, one.zone))
    layout = settings.endpoint.layout
    if layout == "matrix" and len({one.datatype for one in inputs}) > 1:
        raise InvalidData('layout = "matrix" needs inputs of one datatype', next='say layout = "columns" in [endpoint]')
    task = recipe.mark.task
    classes = classes_of(task, table.labels, settings.positive)
    return Signature(task, tuple(inputs), classes, layout)


def fit(
    recipe: Recipe, function: Function, signature: Signature, table: Table, split: Split, parameters: dict[str, Any],
    log: Log,
) -> Fitted:  # fmt: skip
    """Call the recipe on training rows and check what it returns.

    Raises:
        RecipeFailed: it raised, or returned something that cannot be served.
    """
    arrays = from_frame(signature.inputs, table.frame)
    with user_code("the feature function", log):
        frame = function(to_frame(signature.inputs, arrays))
    _check_features(frame, len(table))
    parts = {}
    for name in ("train", "validation"):
        rows = split.parts[name]
        labels = table.labels.iloc[rows].reset_index(drop=True)
        parts[name] = Rows(frame.iloc[rows].reset_index(drop=True), labels)
    train = parts["train"]
    log(f"calling the recipe with {len(train.label)} rows, {frame.shape[1]} columns, parameters {parameters}")
    with user_code("the recipe", log):
        estimator = recipe.function(Dataset(train.features, train.label, parts["validation"], parameters), **parameters)
    name, columns = runtime_of(estimator), list(map(str, frame.columns))
    classes = _check_estimator(name, estimator, signature, columns)
    fitted = Fitted(name, Engine(RUNTIMES[name], estimator, signature, columns, classes), function)
    row = [values[split.parts["train"][:1]] for values in arrays]
    _check_numbers(fitted, row)
    _check_probes(fitted, row, log)
    return fitted


def _check_features(frame: pd.DataFrame, rows: int) -> None:
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise RecipeFailed(f"the feature function returned {type(frame).__name__}, not a DataFrame")
    if len(frame) != rows:
        raise RecipeFailed(f"the feature function returned {len(frame)} rows for {rows}: it may not drop or add any")
    if not all(isinstance(name, str) for name in frame.columns) or frame.columns.has_duplicates:
        raise RecipeFailed(f"the feature function's columns are no distinct names: {list(frame.columns)}")


def _check_estimator(name: RuntimeName, estimator: Any, signature: Signature, columns: list[str]) -> tuple[Label, ...]:
    """Whether it is fitted on exactly the feature function's columns and labels; the order of its classes."""
    kind = type(estimator).__name__
    said = RUNTIMES[name].describe(estimator, signature.task)
    if said.columns == []:
        raise RecipeFailed(
            f"the {kind} was not fitted, or not on columns with names", next="call .fit(data.features, data.label)"
        )
    # LightGBM has no spaces in its names.
    if said.columns is not None and said.columns not in (columns, [column.replace(" ", "_") for column in columns]):
        differing = sorted(set(said.columns) ^ set(columns)) or ["their order"]
        raise RecipeFailed(
            f"the {kind} was fitted on other columns than the feature function's ({', '.join(differing)})",
            next="make every column in the feature function, and fit on data.features as it is",
        )
    classes, found = signature.classes, said.classes
    if found is None:
        return classes
    if set(found) == set(classes):
        return tuple(found)
    if name == "xgboost" and found == list(range(len(classes))):  # its wrapper wants classes as their numbers
        return classes
    absent = [label for label in classes if label not in found]
    raise RecipeFailed(f"no training row is of class {absent[0]!r}" if absent else f"the {kind} knows other classes")


def _check_numbers(fitted: Fitted, row: list[Array]) -> None:
    """Whether it answers a training row as the task needs."""
    kind, signature = type(fitted.engine.model).__name__, fitted.signature
    try:
        (numbers,) = fitted.predict(row)
    except PredictionFailed as error:
        raise RecipeFailed(
            f"the {kind} does not answer a training row: {error.message}",
            next=""
            if fitted.engine.runtime.FRAME
            else f"{fitted.runtime} models take numbers: turn texts and times into numbers in the feature function",
        ) from error
    total = numbers.sum() if signature.task == "multiclass" else 1.0
    if signature.classes and not (numbers.min() >= 0 and numbers.max() <= 1 and abs(total - 1) < 1e-3):
        raise RecipeFailed(
            f"the {kind} answers a training row with {numbers.tolist()}, which are no probabilities",
            next="train it with an objective that gives them (binary:logistic, multi:softprob, binary, multiclass)",
        )


def _check_probes(fitted: Fitted, row: list[Array], log: Log) -> None:
    """What the signature allows must not make the model raise: an unseen category, a missing value."""
    fitted_inputs = fitted.signature.inputs
    for at, spec in enumerate(fitted_inputs):
        probes: list[tuple[str, Any, str]] = []
        if spec.type == "category" and spec.unseen == "allow":
            probes.append(("a category it has never seen", UNSEEN, 'unseen = "refuse"'))
        if spec.nullable:
            text = spec.type in ("string", "category")
            probes.append(
                ("a missing value", None if text else NAT if spec.type == "timestamp" else np.nan, "nullable = false")
            )
        for what, value, instead in probes:
            changed = [*row[:at], np.array([value], row[at].dtype), *row[at + 1 :]]
            try:
                fitted.predict(changed)
            except InterlockError as error:
                raise RecipeFailed(
                    f"{what} in input {spec.name!r} makes the model raise: {error.message}",
                    next=f"handle it in the recipe (an encoder that ignores the unknown, an imputer), or say {instead}",
                ) from error
    log(f"checked: columns, classes, unseen categories and missing values of {len(fitted_inputs)} inputs")
