"""Every runtime keeps one law: what the model answered in training, its package answers too, missing values and all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.models_lab import Packaged, table

from interlock.core.errors import Misconfigured, RecipeFailed
from interlock.core.settings import Task
from interlock.model.runtimes import RUNTIMES, interface
from interlock.training.dataset import Dataset

TASKS: list[Task] = ["binary", "multiclass", "regression"]
CLASSES = {"binary": ["stayed", "left"], "multiclass": ["low", "mid", "top"]}
Answers = Callable[[pd.DataFrame], Any]


def codes(data: Dataset, task: Task) -> Any:
    """Labels as the numbers of the signature's classes."""
    return data.label.map(CLASSES[task].index) if task in CLASSES else data.label


def sklearn_model(data: Dataset, task: Task) -> tuple[Any, Answers]:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(SimpleImputer(), LinearRegression() if task == "regression" else LogisticRegression())
    model.fit(data.features, data.label)
    return model, answers(model, task)


def answers(model: Any, task: Task) -> Answers:
    """What a scikit-learn interface answers, as the signature orders it: `left` is positive, and first in its order."""
    if task == "regression":
        return model.predict  # type: ignore[no-any-return]
    if task == "binary":
        return lambda frame: model.predict_proba(frame)[:, 0]
    return model.predict_proba  # type: ignore[no-any-return]


def xgboost_model(data: Dataset, task: Task) -> tuple[Any, Answers]:
    """Stopped early: the trees after the best are not the model's."""
    import xgboost

    kind = xgboost.XGBRegressor if task == "regression" else xgboost.XGBClassifier
    model = kind(n_estimators=40, max_depth=3, learning_rate=1.0, early_stopping_rounds=3, n_jobs=1)
    held = Dataset(data.validation.features, data.validation.label, data.validation, {})
    model.fit(data.features, codes(data, task), eval_set=[(held.features, codes(held, task))], verbose=False)
    assert model.best_iteration < model.get_booster().num_boosted_rounds() - 1
    at = (lambda frame: model.predict_proba(frame)[:, 1]) if task == "binary" else answers(model, task)
    return model, at


def xgboost_booster(data: Dataset, task: Task) -> tuple[Any, Answers]:
    import xgboost

    objective = {"binary": "binary:logistic", "multiclass": "multi:softprob", "regression": "reg:squarederror"}[task]
    told = {"objective": objective, "nthread": 1, "max_depth": 3} | ({"num_class": 3} if task == "multiclass" else {})
    model = xgboost.train(told, xgboost.DMatrix(data.features, codes(data, task)), 5)
    return model, lambda frame: model.predict(xgboost.DMatrix(frame))


def lightgbm_model(data: Dataset, task: Task) -> tuple[Any, Answers]:
    import lightgbm

    kind = lightgbm.LGBMRegressor if task == "regression" else lightgbm.LGBMClassifier
    named = data.features.rename(columns=lambda name: name.replace(" ", "_"))  # LightGBM does, with a warning
    model = kind(n_estimators=5, num_leaves=7, verbose=-1, n_jobs=1).fit(named, data.label)
    answer = answers(model, task)
    return model, lambda frame: answer(frame.set_axis(list(named), axis=1))


def onnx_model(data: Dataset, task: Task) -> tuple[Any, Answers]:
    """One tensor of all columns."""
    import skl2onnx
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(SimpleImputer(), LinearRegression() if task == "regression" else LogisticRegression())
    single = data.features.to_numpy(np.float32)
    model.fit(single, codes(data, task))
    convert: Any = skl2onnx.to_onnx
    graph = convert(model, single[:1], options=None if task == "regression" else {"zipmap": False})
    at: Answers = (lambda x: model.predict_proba(x)[:, 1]) if task == "binary" else answers(model, task)
    return graph, lambda frame: at(frame.to_numpy(np.float32))


class Nearest:
    """A model of the user's own: the answers of the nearest known row."""

    def __init__(self, rows: np.ndarray, answers: np.ndarray) -> None:
        self.rows, self.answers, self.about = rows, answers, {"kind": "nearest", "missing": [0, None]}

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        found = np.nan_to_num(frame.to_numpy(float))
        return self.answers[((found[:, None] - self.rows) ** 2).sum(axis=2).argmin(axis=1)]  # type: ignore[no-any-return]


def own_model(data: Dataset, task: Task) -> tuple[Any, Answers]:
    found = codes(data, task).to_numpy()
    numbers = np.eye(3)[found] if task == "multiclass" else found.astype(float)
    model = Nearest(np.nan_to_num(data.features.to_numpy(float)), numbers)
    return model, model.predict


MODELS = [sklearn_model, xgboost_model, xgboost_booster, lightgbm_model, onnx_model, own_model]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:skl2onnx")
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("model", MODELS)
def test_a_package_answers_as_the_model_itself(model: Any, task: Task, tmp_path: Path) -> None:
    kept: list[Answers] = []

    def train(data: Dataset) -> Any:
        made, itself = model(data, task)
        kept.append(itself)
        return made

    packaged = Packaged(tmp_path, task, train, table(task), positive="left")
    runtime = RUNTIMES[packaged.built.manifest.runtime.name]
    numbers = packaged.predictor.predict(packaged.arrays)
    expected = np.asarray(kept[0](packaged.table.frame[["a", "b b", "c"]]), float).reshape(len(numbers), -1)
    # An ONNX graph is a translation that computes in 32 bits.
    np.testing.assert_allclose(numbers, expected, rtol=1e-3 if model is onnx_model else runtime.RTOL)
    np.testing.assert_allclose(packaged.fitted.predict(packaged.arrays), numbers, rtol=runtime.RTOL)
    one = packaged.predictor.predict([values[:1] for values in packaged.arrays])
    np.testing.assert_allclose(one, numbers[:1], rtol=runtime.RTOL)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:skl2onnx")
def test_an_onnx_graph_may_take_texts_column_by_column(tmp_path: Path) -> None:
    from skl2onnx import to_onnx
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    kept = []

    def train(data: Dataset) -> Any:
        encoder = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["t"]), remainder="passthrough")
        single = data.features.astype({"a": np.float32})
        kept.append(make_pipeline(encoder, LinearRegression()).fit(single, data.label))
        return to_onnx(kept[0], single[:1]).SerializeToString()

    frame = table("regression", texts=True).fillna({"t": "y"})[["a", "t", "label"]]
    inputs = {"a": "float", "t": "category"}
    packaged = Packaged(tmp_path, "regression", train, frame, inputs=inputs)
    assert packaged.fitted.runtime == "onnx"
    expected = kept[0].predict(packaged.table.frame[["a", "t"]])
    np.testing.assert_allclose(packaged.predictor.predict(packaged.arrays)[:, 0], expected, rtol=1e-4, atol=1e-6)


def test_own_code_travels_as_source_and_is_said_to_be_code(tmp_path: Path) -> None:
    packaged = Packaged(tmp_path, "regression", lambda data: own_model(data, "regression")[0], table("regression"))
    runtime = packaged.built.manifest.runtime
    assert (runtime.name, runtime.code, runtime.file) == ("predictor", "model/predictor.py", "model/predictor.py")
    source = packaged.built.files[runtime.code].decode()
    assert "class Nearest" in source
    assert "sklearn" not in source


class Holder:
    """Of something that is neither an array nor plain."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def predict(self, frame: pd.DataFrame) -> Any:
        return np.zeros(len(frame))


@pytest.mark.parametrize("held", [len, (1, 2), {1: 2}, np.array([print]), float("nan")])
def test_state_that_would_not_come_back_is_refused(held: Any, tmp_path: Path) -> None:
    with pytest.raises(RecipeFailed, match="holds held, a "):
        Packaged(tmp_path, "regression", lambda data: Holder(held), table("regression"))


REFUSED: dict[str, tuple[Task, Any, str]] = {
    "texts": ("regression", lambda data: fitted_tree(data.features[["a"]], data), "other columns .*b b, c"),
    "not fitted": ("regression", lambda data: xgb().XGBRegressor(), "was not fitted"),
    "no probabilities": ("binary", lambda data: booster(data), "which are no probabilities"),
    "another type": ("regression", lambda data: {"not": "a model"}, "returned a dict, which has no predict"),
    "a derived class": ("regression", lambda data: derived(data), "holds .*Derived, which cannot be stored safely"),
    "no graph": ("regression", lambda data: b"no graph", "ONNX graph cannot be read"),
}


def xgb() -> Any:
    import xgboost

    return xgboost


def fitted_tree(features: Any, data: Dataset) -> Any:
    return xgb().XGBRegressor(n_estimators=2).fit(features, data.label)


def booster(data: Dataset) -> Any:
    labels = 100.0 * codes(data, "binary")
    return xgb().train({"nthread": 1}, xgb().DMatrix(data.features, labels), 2)


def derived(data: Dataset) -> Any:
    from sklearn.tree import DecisionTreeRegressor

    class Derived(DecisionTreeRegressor):  # type: ignore[misc]  # scikit-learn has no types
        pass

    return Derived().fit(data.features, data.label)


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_served_is_refused_with_its_reason(name: str, tmp_path: Path) -> None:
    task, train, said = REFUSED[name]
    with pytest.raises(RecipeFailed, match=said):
        Packaged(tmp_path, task, train, table(task).fillna(0), positive="left" if task == "binary" else None)


def test_a_text_column_is_named_as_what_trees_cannot_take(tmp_path: Path) -> None:
    def train(data: Dataset) -> Any:
        coded = data.features.assign(t=data.features["t"].map({"x": 0.0, "y": 1.0, "z": 2.0}))
        return fitted_tree(coded, data)

    with pytest.raises(RecipeFailed, match="does not answer a training row") as caught:
        Packaged(tmp_path, "regression", train, table("regression", texts=True))
    assert "feature function" in caught.value.next


def test_a_library_that_is_not_there_is_named_with_its_extra() -> None:
    with pytest.raises(Misconfigured, match="no_such_library, which is not installed") as caught:
        interface.library("no_such_library", "xgboost")
    assert caught.value.next == 'pip install "interlock[xgboost]"'
