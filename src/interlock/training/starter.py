"""The files of a new project: `interlock.toml` with a reason beside every guess, and a recipe of a page."""

from __future__ import annotations

import msgspec

from interlock.core.settings import Mode
from interlock.training.guess import Guess, Plan

IGNORED = ".interlock/"

EXAMPLE = Plan(
    task="binary",
    task_why="binary, multiclass or regression stands in recipe.py",
    positive=None,
    id="id",
    id_why="unique, or the run fails",
    unit="customer",
    event_time="asked_at",
    event_time_why="when a row could be asked about, with its zone",
    split="time",
    inputs=(
        Guess(
            "amount", "float", True, "float, int, bool, string, category or timestamp; nullable when it may be empty"
        ),
        Guess("country", "category", False, "an example like the others: put your own columns here"),
    ),
    left_out=(),
    sql="select id, asked_at, amount, country, happened\nfrom mytable",
)
"""Where no file was given: every place is there, to be filled in."""
EXAMPLE_LABEL = "happened"


def settings_text(model: str, plan: Plan, label: str, mode: Mode, owner: str) -> str:
    """`interlock.toml`."""
    positive = (
        [f"positive = {_text(plan.positive)}    # the value whose probability is the score"] if plan.positive else []
    )
    inputs = [f"{_key(one.name)} = {_type(one)}    # {one.why}" for one in plan.inputs]
    left_out = [f"# {_key(one.name)}: left out, {one.why}" for one in plan.left_out]
    alone = "the author may sign; every approval says so" if mode == "solo" else "nobody signs their own model"
    return "\n".join(
        [
            "# What this project trains and serves. Each # explains a guess; change what is wrong.",
            f"model = {_text(model)}",
            'recipe = "recipe:train"    # module:function',
            f"mode = {_text(mode)}    # {alone}",
            *positive,
            "",
            "# What is learnt from: a question to the warehouse, asked by each run at a fixed snapshot.",
            "[extract]",
            f"id = {_text(plan.id)}    # {plan.id_why}",
            f"event_time = {_text(plan.event_time)}    # {plan.event_time_why}",
            f"label = {_text(label)}    # {plan.task}: {plan.task_why}",
            f"sql = {_sql(plan.sql)}",
            "",
            "# What a client sends: the raw inputs. A category is open: values that training has not seen are answered.",
            "[inputs]",
            *inputs,
            *left_out,
            "",
            "[split]",
            f"kind = {_text(plan.split)}    # time: the latest rows are held out; random; group: with group = a column",
            "validation = 0.1",
            "test = 0.2",
            "",
            "[parameters]    # of the recipe; interlock train --param learning_rate=0.05 overrides one",
            "learning_rate = 0.1",
            "",
            "[endpoint]",
            f"unit = {_text(plan.unit)}    # what a unit_id is: who always gets the same arm",
            f"owner = {_text(owner)}",
            "",
            "[[monitors]]    # inputs against the training data",
            'kind = "drift"',
            'window = "day"',
            "",
            "[[monitors]]    # scores against those of the held-out rows",
            'kind = "score"',
            'window = "day"',
            "",
            "[serve]",
            "gateway_port = 8080",
            "grpc_port = 8081",
            "control_port = 8400",
            "",
        ]
    )


def recipe_text(model: str, plan: Plan) -> str:
    """`recipe.py`: gradient boosting, text as codes, times as weekday, month and hour."""
    kind = "Regressor" if plan.task == "regression" else "Classifier"
    texts = [one.name for one in plan.inputs if one.type in ("category", "string")]
    times = [one.name for one in plan.inputs if one.type == "timestamp"]
    stop = "" if plan.task == "multiclass" else "early_stopping=True, "  # it would need every class more than once
    imports = [f"from sklearn.ensemble import HistGradientBoosting{kind}"]
    if texts:
        imports = [
            "from sklearn.compose import make_column_transformer",
            *imports,
            "from sklearn.pipeline import make_pipeline",
            "from sklearn.preprocessing import OrdinalEncoder",
        ]
    names = [*([f"TEXTS = {_list(texts)}"] if texts else []), *([f"TIMES = {_list(times)}"] if times else [])]
    return "\n".join(
        [
            f'"""How {model} is trained. Try a change on a sample: interlock train --dry-run"""',
            "",
            *imports,
            "",
            "from interlock.training import Dataset, features, recipe",
            "",
            *([*names, ""] if names else []),
            "",
            "@features",
            "def model_columns(raw):",
            '    """Raw inputs in, model columns out. Training and the model server run this same function: derive here."""',
            "    made = raw.copy()",
            *(_TIMES if times else []),
            '    # made["ratio"] = made["one"] / made["other"]',
            "    return made",
            "",
            "",
            f'@recipe(task="{plan.task}", features=model_columns)',
            "def train(data: Dataset, *, learning_rate: float = 0.1, max_iter: int = 300):",
            '    """A fitted estimator of scikit-learn. data.validation is there for early stopping or calibration."""',
            *(_WITH_TEXTS if texts else []),
            f"    model = HistGradientBoosting{kind}(",
            f"        learning_rate=learning_rate, max_iter=max_iter, {stop}random_state=7",
            "    )",
            f"    return {'make_pipeline(columns, model)' if texts else 'model'}.fit(data.features, data.label)",
            "",
        ]
    )


_TIMES = (
    "    for name in TIMES:",
    "        at = made.pop(name)",
    '        made[f"{name}_month"], made[f"{name}_weekday"], made[f"{name}_hour"] = at.dt.month, at.dt.dayofweek, at.dt.hour',
)
_WITH_TEXTS = (
    "    codes = OrdinalEncoder(",
    '        handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2, min_frequency=5',
    "    )",
    '    columns = make_column_transformer((codes, TEXTS), remainder="passthrough", verbose_feature_names_out=False)',
)


def _type(one: Guess) -> str:
    return f'{{ type = "{one.type}", nullable = true }}' if one.nullable else f'"{one.type}"'


def _text(text: str) -> str:
    """A basic string of TOML, which escapes as JSON does."""
    return msgspec.json.encode(text).decode()


def _key(name: str) -> str:
    bare = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if bare else _text(name)


def _sql(sql: str) -> str:
    return f"'''\n{sql}\n'''" if "'''" not in sql else _text(sql)


def _list(names: list[str]) -> str:
    return "[" + ", ".join(_text(name) for name in names) + "]"
