"""Tree models in a form that answers faster: taken only if it gives the same answers, and is faster alone and in a batch.

Steps before the trees become plain numpy operations (`model.runtimes.compiled`), the trees LightGBM's text.
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
from interlock.model.runtimes import RUNTIMES, compiled
from interlock.model.runtimes.compiled import Codes, Plan, Step, Then
from interlock.training import forests
from interlock.training.fit import Fitted
from interlock.training.load import Log

SIZES = (1, 64)
AFTERWARDS: dict[str, Then] = {
    "identity": "nothing",
    "identity_multiclass": "nothing",
    "sigmoid": "sigmoid",
    "softmax": "softmax",
    "exponential": "exp",
}
"""What treelite calls the function over the sum of the leaves."""
ROUNDS = 7


class Unsupported(Exception):
    """This model stays as it is; says why."""


def compile_trees(
    fitted: Fitted, threshold: float, held_out: list[Array], numbers: NDArray[np.float64], log: Log
) -> tuple[Compiled, dict[str, bytes]] | None:
    """The compiled form of a model and its files; None, with the reason in the log, if it stays as it is.

    `held_out`: raw rows, `numbers`: what the model gave for them; every answer must be the same within its tolerance.
    """
    engine = fitted.engine
    try:
        plan, trees = plan_and_trees(engine.model, engine.columns)
        files = {compiled.FILE: trees.encode(), compiled.PLAN: msgspec.json.encode(plan)}
        other = msgspec.structs.replace(engine, runtime=compiled, model=compiled.load(files))
        found = other.predict(fitted.function, held_out)
    except (Unsupported, InterlockError) as error:
        log(f"not compiled: {error}")
        return None
    told = [derive(fitted.signature, one.ravel().tolist(), threshold).outputs for one in (found, numbers)]
    if told[0].get("label") != told[1].get("label") or not np.allclose(
        found, numbers, rtol=RUNTIMES[fitted.runtime].RTOL, atol=0.0
    ):
        log(f"not compiled: its answers to held-out rows would differ by up to {np.abs(found - numbers).max():.1e}")
        return None
    faster = [_speedup(engine, other, fitted.function, held_out, size) for size in SIZES]
    words = " and ".join(f"{ratio:.1f} × as fast with {size}" for ratio, size in zip(faster, SIZES, strict=True))
    if min(faster) <= 1:
        log(f"not compiled: it would be {words} rows a call")
        return None
    log(f"compiled: {words} rows a call, the same answers to {len(numbers)} held-out rows")
    return Compiled(compiled.FILE, round(faster[0], 2), round(faster[1], 2)), files


def _speedup(engine: Engine, other: Engine, function: Function, held_out: list[Array], size: int) -> float:
    """The original's time for a call with so many rows over the compiled form's: the best of some rounds each, in turn."""
    rows = np.resize(np.arange(len(held_out[0])), size)
    given = [(one, one.prepare(function, [values[rows] for values in held_out])) for one in (engine, other)]
    best = [np.inf, np.inf]
    with threadpoolctl.threadpool_limits(1):  # as in a model server
        for turn in range(2 * ROUNDS):
            one, columns = given[turn % 2]
            start = time.perf_counter()
            one.ask(columns, size)
            best[turn % 2] = min(best[turn % 2], time.perf_counter() - start)
    return best[0] / best[1]


def plan_and_trees(model: Any, columns: list[str]) -> tuple[Plan, str]:
    """A tree model as data: an estimator, or a booster.

    Raises:
        Unsupported: it is no tree model, or something in it cannot be compiled.
    """
    package = type(model).__module__.partition(".")[0]
    if package not in ("sklearn", "xgboost", "lightgbm"):
        raise Unsupported(f"a {type(model).__name__} is no tree model")
    try:
        import treelite
    except ModuleNotFoundError as error:
        raise Unsupported('treelite is not installed (pip install "interlock[trees]")') from error
    plan, trees = Plan(list(range(len(columns))), {}, []), model
    if package == "sklearn":
        *before, trees = [one for _, one in model.steps] if hasattr(model, "steps") else [model]
        plan = _planned(before, plan)
        plan.steps.extend(_compared(trees))
    try:
        if package == "sklearn":
            found = treelite.sklearn.import_model(trees)
        elif package == "xgboost":
            found = treelite.frontend.from_xgboost(model)
        else:
            found = treelite.frontend.from_lightgbm(model)
    except (
        treelite.TreeliteError,
        NotImplementedError,
        AssertionError,
        TypeError,
        ValueError,
    ) as error:  # all are its own
        raise Unsupported(f"treelite does not take the {type(model).__name__}: {error}") from error
    dump = forests.read_dump(found)
    try:
        text = model.model_to_string() if package == "lightgbm" else forests.to_lightgbm(dump)
    except forests.Untranslatable as error:
        raise Unsupported(f"the trees of the {type(model).__name__} have {error}") from error
    if dump["postprocessor"] not in AFTERWARDS:
        raise Unsupported(f"the trees of the {type(model).__name__} are followed by {dump['postprocessor']}")
    divided = len(dump["trees"]) if dump["average_tree_output"] else 1
    return msgspec.structs.replace(
        plan,
        single=found.input_type == "float32",
        lifted=package != "lightgbm",
        base=tuple(dump["base_scores"]),
        divided=divided,
        then=AFTERWARDS[dump["postprocessor"]],
        alpha=dump["sigmoid_alpha"],
    ), text


def _compared(trees: Any) -> list[Step]:
    """What scikit-learn does to numbers before its trees compare them."""
    name = type(trees).__name__
    if name.startswith("HistGradientBoosting") and trees.is_categorical_ is None:
        return []
    if name.startswith(("RandomForest", "ExtraTrees")):
        return [Step("single")]
    if name.startswith("GradientBoosting"):
        return [Step("single"), Step("known")]
    raise Unsupported(f"a {name} is no tree model, or has categorical columns")


def _planned(before: list[Any], plan: Plan) -> Plan:
    """The plan with the steps of a pipeline before its trees."""
    for at, step in enumerate(before):
        name = type(step).__name__
        if name == "StandardScaler":
            plan.steps.extend([Step("subtract", step.mean_.tolist())] if step.with_mean else [])
            plan.steps.extend([Step("divide", step.scale_.tolist())] if step.with_std else [])
        elif name == "SimpleImputer" and step.missing_values is np.nan and not step.add_indicator:
            values = np.asarray(step.statistics_, np.float64)
            if np.isnan(values).any():
                raise Unsupported("an imputer drops a column that was always missing")
            plan.steps.append(Step("fill", values.tolist()))
        elif name == "ColumnTransformer" and at == 0:
            plan = _transformed(step)
        else:
            raise Unsupported(f"the step {name} before the trees")
    return plan


def _transformed(transformer: Any) -> Plan:
    """A ColumnTransformer that encodes texts, passes columns on, and drops others."""
    order: list[int] = []
    codes: dict[int, Codes] = {}
    for name, part, _ in transformer.transformers_:
        chosen = [int(at) for at in transformer._transformer_to_input_indices[name]]
        if part == "drop" or not chosen:
            continue
        kind = type(part).__name__
        if kind == "OrdinalEncoder" and part.handle_unknown == "use_encoded_value":
            codes |= {at: _codes(part, place) for place, at in enumerate(chosen)}
        elif part != "passthrough" and not (kind == "FunctionTransformer" and part.func is None):
            raise Unsupported(f"the {kind} of some columns before the trees")
        order += chosen
    return Plan(order, codes, [])


def _codes(encoder: Any, place: int) -> Codes:
    """What an OrdinalEncoder makes of each text of a column: it is asked itself."""
    import pandas as pd

    known = [value for value in encoder.categories_[place] if isinstance(value, str)]
    if len(known) < sum(value is not None and value == value for value in encoder.categories_[place]):
        raise Unsupported("an encoder of values that are no texts")
    asked = pd.Series([*known, None, np.nan, "\N{REPLACEMENT CHARACTER} never seen"], dtype=object)
    rest = {name: values[0] for name, values in zip(encoder.feature_names_in_, encoder.categories_, strict=True)}
    frame = pd.DataFrame(rest, index=asked.index, dtype=object)
    frame[encoder.feature_names_in_[place]] = asked
    codes = np.asarray(encoder.transform(frame), np.float64)[:, place]
    none, nan, unknown = (None if np.isnan(code) else float(code) for code in codes[-3:])
    return Codes(dict(zip(known, codes.tolist(), strict=False)), unknown, none, nan)
