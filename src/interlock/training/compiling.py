"""Tree models in a form that answers faster: taken only if it gives the same answers, and is faster alone and in a batch.

Steps before the trees become plain numpy operations (`model.runtimes.compiled`), the trees a treelite checkpoint.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
import numpy as np
import threadpoolctl
from numpy.typing import NDArray

from interlock.core.errors import InterlockError
from interlock.model.answers import derive
from interlock.model.columns import Array
from interlock.model.features import Function
from interlock.model.manifest import Compiled
from interlock.model.predictor import Engine
from interlock.model.runtimes import RUNTIMES, compiled, lightgbm, xgboost
from interlock.model.runtimes.compiled import Codes, Fill, Plan, Scale, Single
from interlock.training.fit import Fitted
from interlock.training.load import Log

SIZES = (1, 64)
ROUNDS = 7
SINGLE = {"RandomForest": True, "ExtraTrees": True, "GradientBoosting": False}
"""scikit-learn's trees that compare in 32 bits, by the beginning of their names: whether they take missing values."""


class _Unsupported(Exception):
    """This model stays as it is; says why."""


def compile_trees(
    fitted: Fitted, threshold: float, held_out: list[Array], numbers: NDArray[np.float64], log: Log
) -> tuple[Compiled, dict[str, bytes]] | None:
    """The compiled form of a model and its files; None, with the reason in the log, if it stays as it is.

    `held_out`: raw rows, `numbers`: what the model gave for them; every answer must be the same within its tolerance.
    """
    engine = fitted.engine
    try:
        plan, checkpoint = _imported(engine.model, engine.columns)
        files = {compiled.FILE: checkpoint, compiled.PLAN: msgspec.json.encode(plan)}
        other = msgspec.structs.replace(engine, runtime=compiled, model=compiled.load(files))
        _check(fitted, threshold, numbers, other.predict(fitted.function, held_out))
    except (_Unsupported, InterlockError) as error:
        log(f"not compiled: {error}")
        return None
    faster = [_speedup(engine, other, fitted.function, held_out, size) for size in SIZES]
    words = " and ".join(f"{ratio:.1f} × as fast with {size}" for ratio, size in zip(faster, SIZES, strict=True))
    if min(faster) <= 1:
        log(f"not compiled: it would be {words} rows a call")
        return None
    log(f"compiled: {words} rows a call, the same answers to {len(numbers)} held-out rows")
    return Compiled(compiled.FILE, compiled.PLAN, round(faster[0], 2), round(faster[1], 2)), files


def _check(fitted: Fitted, threshold: float, expected: NDArray[np.float64], found: NDArray[np.float64]) -> None:
    if not np.allclose(found, expected, rtol=RUNTIMES[fitted.runtime].RTOL, atol=0.0):
        worst = np.abs(found - expected).max()
        raise _Unsupported(f"its answers to held-out rows would differ by up to {worst:.1e}")
    both = [derive(fitted.signature, one.ravel().tolist(), threshold).outputs.get("label") for one in (expected, found)]
    if both[0] != both[1]:
        raise _Unsupported("a label of a held-out row would differ")


def _speedup(engine: Engine, other: Engine, function: Function, held_out: list[Array], size: int) -> float:
    """The original's time for a call with so many rows over the compiled form's: the best of some rounds each, in turn."""
    rows = np.resize(np.arange(len(held_out[0])), size)
    arrays = [values[rows] for values in held_out]
    given = [(one, one.prepare(function, arrays)) for one in (engine, other)]
    best = [np.inf, np.inf]
    with threadpoolctl.threadpool_limits(1):  # as in a model server
        for _ in range(ROUNDS):
            for at, (one, columns) in enumerate(given):
                start = time.perf_counter()
                one.ask(columns, size)
                best[at] = min(best[at], time.perf_counter() - start)
    return best[0] / best[1]


def _imported(model: Any, columns: list[str]) -> tuple[Plan, bytes]:
    """Plan and checkpoint of a recipe's model.

    Raises:
        _Unsupported: it is no tree model, or something in it cannot be compiled.
    """
    package = type(model).__module__.partition(".")[0]
    if package not in ("sklearn", "xgboost", "lightgbm"):
        raise _Unsupported(f"a {type(model).__name__} is no tree model")
    try:
        import treelite.frontend
        import treelite.sklearn
    except ModuleNotFoundError as error:
        raise _Unsupported(f'{error.name} is not installed (pip install "interlock[trees]")') from error
    plan = Plan(list(range(len(columns))), {}, [])
    try:
        if package == "sklearn":
            *before, trees = [one for _, one in model.steps] if hasattr(model, "steps") else [model]
            plan = _planned(before, plan, columns)
            plan.steps.extend(_compared(trees))
            found = treelite.sklearn.import_model(trees)
        elif package == "xgboost":
            found = treelite.frontend.from_xgboost(xgboost.booster_of(model))
        else:
            found = treelite.frontend.from_lightgbm(lightgbm.booster_of(model))
        softmax = found.get_header_accessor().get_field("postprocessor") == "softmax"
        return msgspec.structs.replace(plan, softmax=softmax), found.serialize_bytes()
    except (treelite.TreeliteError, NotImplementedError, AssertionError, TypeError, ValueError) as error:
        raise _Unsupported(f"treelite does not take the {type(model).__name__}: {error}") from error


def _compared(trees: Any) -> list[Single]:
    """What scikit-learn does to numbers before its trees compare them."""
    name = type(trees).__name__
    if name.startswith("HistGradientBoosting"):
        if trees.is_categorical_ is not None:
            raise _Unsupported(f"the {name} has categorical columns")
        return []
    for beginning, missing in SINGLE.items():
        if name.startswith(beginning):
            return [Single(missing)]
    raise _Unsupported(f"a {name} is no tree model")


def _planned(before: list[Any], plan: Plan, columns: list[str]) -> Plan:
    """The plan with the steps of a pipeline before its trees."""
    for at, step in enumerate(before):
        name = type(step).__name__
        if name == "StandardScaler":
            mean, scale = step.mean_ if step.with_mean else None, step.scale_ if step.with_std else None
            plan.steps.append(Scale(*(None if one is None else one.tolist() for one in (mean, scale))))
        elif name == "SimpleImputer" and step.missing_values is np.nan and not step.add_indicator:
            values = np.asarray(step.statistics_, np.float64)
            if np.isnan(values).any():
                raise _Unsupported("an imputer drops a column that was always missing")
            plan.steps.append(Fill(values.tolist()))
        elif name == "ColumnTransformer" and at == 0:
            plan = _transformed(step, columns)
        elif step != "passthrough":
            raise _Unsupported(f"the step {name} before the trees")
    return plan


def _transformed(transformer: Any, columns: list[str]) -> Plan:
    """A ColumnTransformer that encodes texts, passes columns on, and drops others."""
    order: list[int] = []
    codes: dict[int, Codes] = {}
    for name, part, _ in transformer.transformers_:
        chosen = [int(at) for at in transformer._transformer_to_input_indices[name]]
        if part == "drop" or not chosen:
            continue
        kind = type(part).__name__
        if kind == "OrdinalEncoder":
            codes |= {at: _codes(part, place) for place, at in enumerate(chosen)}
        elif part != "passthrough" and not (kind == "FunctionTransformer" and part.func is None):
            raise _Unsupported(f"the {kind} of some columns before the trees")
        order += chosen
    if len(set(order)) != len(order):
        raise _Unsupported("a column goes to the trees in two forms")
    return Plan(order, codes, [])


def _codes(encoder: Any, place: int) -> Codes:
    """What an OrdinalEncoder makes of each text of a column: it is asked itself."""
    import pandas as pd

    known = [value for value in encoder.categories_[place] if isinstance(value, str)]
    if len(known) < sum(value is not None and value == value for value in encoder.categories_[place]):
        raise _Unsupported("an encoder of values that are no texts")
    if encoder.handle_unknown != "use_encoded_value":
        raise _Unsupported("an encoder that refuses values that it has not seen")
    asked = [*known, None, np.nan, "\N{REPLACEMENT CHARACTER} never seen"]
    rest = [categories[0] for categories in encoder.categories_]
    frame = pd.DataFrame({at: pd.Series([value] * len(asked), dtype=object) for at, value in enumerate(rest)})
    frame[place] = pd.Series(asked, dtype=object)
    frame.columns = list(encoder.feature_names_in_)
    found = np.asarray(encoder.transform(frame), np.float64)[:, place]
    none, nan, unknown = (None if np.isnan(value) else float(value) for value in found[-3:])
    return Codes(dict(zip(known, found.tolist(), strict=False)), unknown, none, nan)
