"""scikit-learn models come back from bytes with the same answers; whatever is off the allow-list does not come back."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import KFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder
from sklearn.svm import SVR

from interlock.core.errors import RecipeFailed, Tampered
from interlock.model.predictor import Engine
from interlock.model.runtimes import sklearn as runtime
from interlock.model.signature import Input, Label, Signature

ROWS = 120
INPUTS = (Input("a", "float"), Input("b", "float"), Input("c", "category"))


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    values = {"a": rng.normal(size=ROWS), "b": rng.normal(size=ROWS)}
    return pd.DataFrame({**values, "c": rng.choice(["x", "y", "z"], ROWS).astype(object)})


def columns(encoder: Any, *, numbers: Any = "passthrough") -> ColumnTransformer:
    return ColumnTransformer([("text", encoder, ["c"]), ("numbers", numbers, ["a", "b"])])


NUMBERS = make_pipeline(SimpleImputer(), StandardScaler())
ONE_HOT = OneHotEncoder(handle_unknown="ignore")
ORDINAL = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
CLASSIFIERS = [
    make_pipeline(columns(ONE_HOT, numbers=NUMBERS), LogisticRegression()),
    make_pipeline(columns(ORDINAL), HistGradientBoostingClassifier(max_iter=5)),
    make_pipeline(columns(TargetEncoder(cv=KFold(2))), RandomForestClassifier(5, random_state=0)),
    make_pipeline(columns(ORDINAL), ExtraTreesClassifier(5, random_state=0)),
    make_pipeline(columns(ONE_HOT), KNeighborsClassifier()),
    CalibratedClassifierCV(make_pipeline(columns(ONE_HOT), LogisticRegression()), cv=2),
]
REGRESSORS = [
    make_pipeline(columns("drop", numbers=NUMBERS), LinearRegression()),
    make_pipeline(columns("drop"), GradientBoostingRegressor(n_estimators=5)),
    make_pipeline(columns("drop"), SVR()),
    make_pipeline(columns("drop"), MLPRegressor(hidden_layer_sizes=(4,), solver="lbfgs", random_state=0)),
]


@pytest.mark.parametrize(
    "estimator", CLASSIFIERS, ids=lambda one: type(one[-1] if hasattr(one, "steps") else one).__name__
)
@pytest.mark.parametrize("classes", [("no", "yes"), (False, True), ("a", "b", "c")], ids=["text", "bool", "three"])
def test_classifiers_come_back(estimator: Any, classes: tuple[Label, ...]) -> None:
    raw = frame()
    labels = np.array([classes[i % len(classes)] for i in range(ROWS)], object if classes[0] == "no" else None)
    fitted = estimator.fit(raw, labels)
    # The signature's order is ours, not the estimator's: the positive class may come first in the alphabet.
    signature = Signature("multiclass" if len(classes) > 2 else "binary", INPUTS, classes[::-1])
    stored = runtime.dump(fitted)
    assert set(stored.types) <= runtime.ALLOWED
    order = tuple(stored.classes or ())
    numbers = Engine(runtime, runtime.load(stored.files), signature, list(raw), order).ask(raw, ROWS)
    expected = fitted.predict_proba(raw)[:, ::-1] if len(classes) > 2 else fitted.predict_proba(raw)[:, :1]
    np.testing.assert_array_equal(numbers, expected)


@pytest.mark.parametrize("estimator", REGRESSORS, ids=lambda one: type(one[-1]).__name__)
def test_regressors_come_back(estimator: Any) -> None:
    raw = frame()
    fitted = estimator.fit(raw, raw["a"])
    numbers = runtime.predict(runtime.load(runtime.dump(fitted).files), "regression", raw)
    np.testing.assert_array_equal(numbers, fitted.predict(raw))


class Strange(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A class of the user's, which no model server has."""


def own_function(values: Any) -> Any:
    return values


@pytest.mark.parametrize(
    ("estimator", "named"),
    [(Strange(), "Strange"), (FunctionTransformer(own_function), "own_function"), (FunctionTransformer(eval), "eval")],
)
def test_a_type_off_the_list_is_refused_by_name(estimator: Any, named: str) -> None:
    with pytest.raises(RecipeFailed, match=named):
        runtime.dump(estimator)


def test_what_cannot_be_stored_is_refused() -> None:
    with pytest.raises(RecipeFailed, match="FunctionTransformer"):
        runtime.dump(FunctionTransformer(lambda values: values))


def test_a_file_with_a_foreign_type_is_not_loaded() -> None:
    import skops.io

    with pytest.raises(Tampered, match="own_function"):
        runtime.load({runtime.FILE: skops.io.dumps(FunctionTransformer(own_function))})


@pytest.mark.parametrize("data", [b"", b"PK", pickle.dumps(3)])
def test_a_file_of_another_kind_is_not_loaded(data: bytes) -> None:
    with pytest.raises(Tampered):
        runtime.load({runtime.FILE: data})
