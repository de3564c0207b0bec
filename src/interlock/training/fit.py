"""From a table to a model: features, the recipe's call, and the checks without which nothing is packaged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from interlock.core.errors import InterlockError, InvalidData, PredictionFailed, RecipeFailed
from interlock.core.settings import Settings, Task
from interlock.model.columns import NAT, Array
from interlock.model.features import Function
from interlock.model.frames import from_frame, to_frame
from interlock.model.manifest import RuntimeName
from interlock.model.predictor import Engine
from interlock.model.runtimes import RUNTIMES, runtime_of
from interlock.model.runtimes.interface import Stored
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
    stored: Stored
    engine: Engine
    function: Function

    @property
    def signature(self) -> Signature:
        """What the model takes and gives."""
        return self.engine.signature

    def predict(self, arrays: list[Array]) -> NDArray[np.float64]:
        """Numbers [rows, width] of raw rows."""
        return self.engine.predict(self.function, arrays)


def signature_of(settings: Settings, task: Task, table: Table, split: Split) -> Signature:
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
    classes = classes_of(task, table.labels, settings.positive)
    return Signature(task, tuple(inputs), classes, layout)


def fit(
    recipe: Recipe, function: Function, signature: Signature, table: Table, split: Split, parameters: dict[str, Any],
    log: Log, requirements: tuple[str, ...] = (),
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
    row = [values[split.parts["train"][:1]] for values in arrays]
    fitted = checked(estimator, function, signature, list(map(str, frame.columns)), row, requirements)
    check_probes(fitted, row, log)
    return fitted


def checked(
    estimator: Any, function: Function, signature: Signature, columns: list[str], row: list[Array],
    requirements: tuple[str, ...] = (), classes: tuple[Label, ...] = (),
) -> Fitted:  # fmt: skip
    """A fitted model that fits model columns and signature, and answers the raw row. `classes`: the order of its
    probabilities where the model itself does not know it (empty: the signature's).

    Raises:
        RecipeFailed: it cannot be served.
    """
    name, stored, order = _check_estimator(estimator, signature, columns, requirements)
    order = classes if classes and stored.classes is None else order
    model = estimator if RUNTIMES[name].FRAME else RUNTIMES[name].load(stored.files)
    fitted = Fitted(name, stored, Engine(RUNTIMES[name], model, signature, columns, order), function)
    _check_numbers(fitted, row)
    return fitted


def _check_features(frame: pd.DataFrame, rows: int) -> None:
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise RecipeFailed(f"the feature function returned {type(frame).__name__}, not a DataFrame")
    if len(frame) != rows:
        raise RecipeFailed(f"the feature function returned {len(frame)} rows for {rows}: it may not drop or add any")
    if not all(isinstance(name, str) for name in frame.columns) or frame.columns.has_duplicates:
        raise RecipeFailed(f"the feature function's columns are no distinct names: {list(frame.columns)}")


def _check_estimator(
    estimator: Any, signature: Signature, columns: list[str], requirements: tuple[str, ...]
) -> tuple[RuntimeName, Stored, tuple[Label, ...]]:
    """Whether it is fitted on exactly the feature function's columns and labels; its runtime, files, and class order."""
    if estimator is None:
        raise RecipeFailed("the recipe returned nothing", next="end it with: return estimator.fit(…)")
    name, kind, classes = runtime_of(estimator), type(estimator).__name__, signature.classes
    needed = "predict" if signature.task == "regression" else "predict_proba"
    if name == "sklearn" and not hasattr(estimator, needed):
        raise RecipeFailed(
            f"the recipe returned a {kind}, which has no {needed}",
            next="return a fitted scikit-learn estimator; CalibratedClassifierCV gives probabilities to any classifier",
        )
    stored = RUNTIMES[name].dump(estimator, requirements)
    if stored.columns == []:
        raise RecipeFailed(
            f"the {kind} was not fitted, or not on columns with names", next="call .fit(data.features, data.label)"
        )
    # LightGBM has no spaces in its names.
    if stored.columns not in (None, columns, [column.replace(" ", "_") for column in columns]):
        differing = sorted(set(stored.columns or ()) ^ set(columns)) or ["their order"]
        raise RecipeFailed(
            f"the {kind} was fitted on other columns than the feature function's ({', '.join(differing)})",
            next="make every column in the feature function, and fit on data.features as it is",
        )
    if stored.classes is None:
        return name, stored, classes
    if set(stored.classes) != set(classes):
        if name == "xgboost" and len(stored.classes) == len(classes):  # it wants classes as their numbers
            return name, stored, classes
        absent = [label for label in classes if label not in stored.classes]
        raise RecipeFailed(
            f"no training row is of class {absent[0]!r}" if absent else f"the {kind} knows other classes"
        )
    return name, stored, tuple(stored.classes)


def _check_numbers(fitted: Fitted, row: list[Array]) -> None:
    """Whether it answers a training row, and a class with probabilities."""
    kind, signature = type(fitted.engine.model).__name__, fitted.signature
    try:
        (numbers,) = fitted.predict(row)
    except PredictionFailed as error:
        raise RecipeFailed(
            f"the {kind} does not answer a training row: {error.message}",
            next="models of XGBoost and LightGBM take numbers: make them of texts and times in the feature function",
        ) from error
    total = numbers.sum() if signature.task == "multiclass" else 1.0
    if signature.classes and (numbers.min() < 0 or numbers.max() > 1 or abs(total - 1) > 1e-3):
        raise RecipeFailed(
            f"the {kind} answers a training row with {numbers.tolist()}, which are no probabilities",
            next="train it with an objective that gives them: binary:logistic, multi:softprob, binary, multiclass",
        )


def check_probes(fitted: Fitted, row: list[Array], log: Log) -> None:
    """What the signature allows must not make the model raise: an unseen category, a missing value; RecipeFailed."""
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
