"""Compiled trees answer as the model they were made of: random tables, models and rows, on the edges of the trees too."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
import sklearn.ensemble
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler

from interlock.core.settings import Task
from interlock.model.columns import Array
from interlock.model.predictor import Engine
from interlock.model.runtimes import RUNTIMES, compiled, runtime_of
from interlock.model.signature import Input, Signature
from interlock.training.compiling import Unsupported, plan_and_trees

CLASSES: dict[Task, tuple[str, ...]] = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c"), "regression": ()}
COLUMNS = ["p", "q", "r", "t"]
TEXTS = ["x", "y", "rare", None]
GRID = st.sampled_from([0.0, -0.0, 0.1, 0.2, 0.30000000000000004, 1e-40, -1.5, 3.0, 16777217.0, 1e30, float("nan")])
KINDS = ("HistGradientBoosting", "RandomForest", "ExtraTrees", "GradientBoosting", "xgboost", "lightgbm")


def table(rows: int, seed: int, grid: list[float]) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.choice(grid, (rows, 3)), columns=COLUMNS[:3])
    return frame.assign(t=pd.Series(rng.choice(np.array(TEXTS, object), rows), dtype=object))


def model_of(kind: str, task: Task, seed: int) -> Any:
    if kind == "xgboost":
        import xgboost

        made = xgboost.XGBRegressor if task == "regression" else xgboost.XGBClassifier
        return made(n_estimators=4, max_depth=3, random_state=seed, n_jobs=1)
    if kind == "lightgbm":
        import lightgbm

        made = lightgbm.LGBMRegressor if task == "regression" else lightgbm.LGBMClassifier
        return made(n_estimators=4, num_leaves=5, min_child_samples=2, verbose=-1, n_jobs=1)
    size = {"max_iter": 4, "early_stopping": False} if kind.startswith("Hist") else {"n_estimators": 4}
    trees = getattr(sklearn.ensemble, kind + ("Regressor" if task == "regression" else "Classifier"))
    encoder = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2, min_frequency=3
    )
    encoded = make_column_transformer((encoder, ["t"]), ("drop", ["q"]), remainder="passthrough")
    return make_pipeline(encoded, SimpleImputer(strategy="median"), StandardScaler(), trees(random_state=seed, **size))


def arrays_of(frame: pd.DataFrame) -> list[Array]:
    return [frame[name].to_numpy() for name in frame]


@pytest.mark.parametrize("task", CLASSES)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(
    grid=st.lists(GRID, min_size=2, max_size=6),
    more=st.lists(GRID, min_size=1, max_size=4),
    seed=st.integers(0, 1000),
)
def test_the_compiled_form_answers_as_the_original(
    kind: str, task: Task, grid: list[float], more: list[float], seed: int
) -> None:
    """Values of `more` and the text "new" are not in the table that the model learned from."""
    numeric = kind in ("xgboost", "lightgbm")
    train = table(60, seed, [*grid, 0.5, 2.0])
    asked = pd.concat([table(40, seed + 1, grid + more), train], ignore_index=True)
    asked.loc[0, "t"] = "new"
    if numeric:
        train, asked = train[COLUMNS[:3]], asked[COLUMNS[:3]]
    numbers = np.nan_to_num(train["p"].to_numpy()) + np.arange(60) % 3
    codes = np.arange(60) % max(len(CLASSES[task]), 1)
    labels = numbers if task == "regression" else codes if numeric else np.array(CLASSES[task])[codes]
    model = model_of(kind, task, seed).fit(train, labels)
    name = runtime_of(model)
    signature = Signature(task, tuple(Input(one, "float") for one in train), CLASSES[task])
    if numeric:
        model = RUNTIMES[name].load(RUNTIMES[name].dump(model).files)
    original = Engine(RUNTIMES[name], model, signature, list(train), ())
    try:
        plan, trees = plan_and_trees(model, list(train))
    except Unsupported as error:
        if "too small" not in str(error):
            raise
        reject()
    files = {compiled.FILE: trees.encode(), compiled.PLAN: msgspec.json.encode(plan)}
    other = msgspec.structs.replace(original, runtime=compiled, model=compiled.load(files))
    expected = original.ask(asked if RUNTIMES[name].FRAME else arrays_of(asked), len(asked))
    found = other.ask(arrays_of(asked), len(asked))
    scale = np.abs(expected).max(initial=1.0)
    rtol = RUNTIMES[name].RTOL
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * scale if task == "regression" else 0.0)
