"""What `interlock init` makes of somebody's columns, and that what it writes can be read again."""

from __future__ import annotations

import tomllib
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from interlock.core.errors import InvalidData, NotFound
from interlock.core.settings import Settings, load_settings
from interlock.training import starter
from interlock.training.guess import Plan, guess

N = 400
START = datetime(2026, 1, 1)


def customers(**more: Any) -> pa.Table:
    """A table as it comes from a CSV; `more` adds or replaces columns."""
    churned = ["yes" if i % 5 == 0 else "no" for i in range(N)]
    columns: dict[str, Any] = {
        "customer_id": [f"c{i:04}" for i in range(N)],
        "signup": [START + timedelta(hours=i) for i in range(N)],
        "plan": [("basic", "plus", "pro")[i % 3] for i in range(N)],
        "Monthly Spend": [None if i % 7 == 0 else i * 0.37 for i in range(N)],
        "calls": [i % 9 for i in range(N)],
        "business": [i % 2 == 0 for i in range(N)],
        "churned": churned,
    }
    return pa.table({**columns, **more})


def types(plan: Plan) -> dict[str, str]:
    return {one.name: f"{one.type}{'?' if one.nullable else ''}" for one in plan.inputs}


def reasons(plan: Plan) -> dict[str, str]:
    return {one.name: one.why for one in plan.left_out}


def test_types_nulls_id_and_label_are_guessed() -> None:
    plan = guess(customers(), "customers", "churned", "signup")
    assert types(plan) == {"plan": "category", "Monthly Spend": "float?", "calls": "int", "business": "bool"}
    assert (plan.task, plan.positive, plan.id, plan.event_time, plan.split) == (
        "binary",
        "yes",
        "customer_id",
        "signup",
        "time",
    )
    assert """cast("signup" as timestamp) at time zone 'UTC' as "signup\"""" in plan.sql
    assert '"Monthly Spend"' in plan.sql


def test_what_would_not_help_is_left_out_with_the_reason() -> None:
    plan = guess(
        customers(
            currency=["EUR"] * N,
            nothing=pa.nulls(N, pa.string()),
            email=[f"{i}@x.org" for i in range(N)],
            account_no=[i * 31 % 997 for i in range(N)],
            churned_because=["price" if i % 5 == 0 else None for i in range(N)],
            refund=[i * 1.1 if i % 5 == 0 else None for i in range(N)],
            cancelled=["yes" if i % 5 == 0 else "no" for i in range(N)],
            last_seen=[date(2026, 6, 1)] * (N - 1) + [date(2026, 6, 2)],
            PLAN=[("a", "b")[i % 2] for i in range(N)],
            blob=[b"x", b"y"] * (N // 2),
        ),
        "customers",
        "churned",
        "signup",
    )
    told = reasons(plan)
    assert set(types(plan)) == {"plan", "Monthly Spend", "calls", "business"}
    assert "same value" in told["currency"]
    assert "empty" in told["nothing"]
    assert "names a row" in told["email"]
    assert "id" in told["account_no"]
    assert "label" in told["churned_because"]
    assert "whether it is there tells churned" in told["refund"]
    assert "its value tells churned" in told["cancelled"]
    assert "lies after signup" in told["last_seen"]
    assert "one name" in told["PLAN"]
    assert "binary" in told["blob"]


def test_a_column_that_only_helps_is_kept() -> None:
    helpful = ["a" if (i % 5 == 0) != (i % 11 == 0) else "b" for i in range(N)]
    assert "helpful" in types(guess(customers(helpful=helpful), "customers", "churned"))


def test_a_rare_label_makes_nothing_look_like_a_leak() -> None:
    rare = ["yes" if i == 3 else "no" for i in range(N)]
    assert "calls" in types(guess(customers(churned=rare), "customers", "churned", "signup"))


def test_without_a_unique_column_rows_are_numbered_in_an_order_that_can_be_repeated() -> None:
    plan = guess(customers().drop_columns(["customer_id"]), "customers", "churned", "signup")
    assert plan.id == "row_id"
    assert "row_number() over (order by " in plan.sql
    taken = guess(customers(ROW_ID=[1] * N).drop_columns(["customer_id"]), "customers", "churned", "signup")
    assert taken.id == "row_id_"


def test_a_unique_number_is_an_id_only_if_it_is_called_so_or_counts_up() -> None:
    bare = customers().drop_columns(["customer_id"])
    counting = bare.append_column("line", pa.array(range(7, N + 7)))
    assert guess(counting, "customers", "churned").id == "line"
    income = bare.append_column("income", pa.array([i * 13 + 1000 for i in range(N)]))
    plan = guess(income, "customers", "churned")
    assert plan.id == "row_id"
    assert types(plan)["income"] == "int"


@pytest.mark.parametrize(
    ("label", "task", "positive"),
    [
        (["Y", "N"] * (N // 2), "binary", "Y"),
        (["rare"] + ["usual"] * (N - 1), "binary", "rare"),
        ([0, 1] * (N // 2), "binary", None),
        ([True, False] * (N // 2), "binary", None),
        ([0.0, 1.0, None, 1.0] * (N // 4), "binary", None),
        (["a", "b", "c", "d"] * (N // 4), "multiclass", None),
        (list(range(20)) * (N // 20), "multiclass", None),
        (list(range(N)), "regression", None),
        ([i / 3 for i in range(N)], "regression", None),
        ([0.0, 0.5] * (N // 2), "regression", None),
    ],
)
def test_the_task_follows_from_the_label(label: list[Any], task: str, positive: str | None) -> None:
    plan = guess(customers(churned=label), "customers", "churned", "signup")
    assert (plan.task, plan.positive) == (task, positive)
    assert (None in label) == ('"churned" is not null' in plan.sql)


@pytest.mark.parametrize(
    ("label", "why"),
    [
        (["x"] * N, "nothing to learn"),
        ([f"t{i}" for i in range(N)], "classes"),
        ([START] * (N - 1) + [None], "nothing"),
    ],
)
def test_a_label_that_cannot_be_learnt_is_refused(label: list[Any], why: str) -> None:
    with pytest.raises(InvalidData, match=why):
        guess(customers(churned=label), "customers", "churned", "signup")


def test_columns_that_are_not_there_or_hold_no_times_are_named() -> None:
    with pytest.raises(NotFound, match="no column chorned"):
        guess(customers(), "customers", "chorned")
    with pytest.raises(InvalidData, match="plan holds no times"):
        guess(customers(), "customers", "churned", "plan")
    only = customers().select(["customer_id", "churned"])
    with pytest.raises(InvalidData, match="no column to learn from"):
        guess(only, "customers", "churned")


def test_times_without_a_zone_are_taken_for_utc_and_said_so() -> None:
    aware = [datetime(2026, 1, 1, tzinfo=UTC) - timedelta(days=i) for i in range(N)]
    plan = guess(customers(met=[one.date() for one in aware], seen=aware), "customers", "churned", "signup")
    assert types(plan)["met"] == types(plan)["seen"] == "timestamp"
    told = {one.name: one.why for one in plan.inputs}
    assert "UTC" in told["met"]
    assert "UTC" not in told["seen"]
    assert '"seen",' in plan.sql


NAMES = {
    "a b": [1, 2] * (N // 2),
    'say "x"': ["p", "q"] * (N // 2),
    "it's": [True, False] * (N // 2),
    "größe": [1.5, 2.5] * (N // 2),
}


@pytest.mark.parametrize("mode", ["solo", "team"])
def test_what_is_written_reads_as_settings_and_compiles(mode: Any, tmp_path: Path) -> None:
    plan = guess(customers(**NAMES), "customers", "churned", "signup")
    text = starter.settings_text("my-model", plan, "churned", mode, "ann")
    (tmp_path / "interlock.toml").write_text(text)
    settings = load_settings(tmp_path / "interlock.toml", {})
    assert set(NAMES) < set(settings.inputs)
    assert (settings.mode, settings.positive, settings.extract.sql.strip()) == (mode, "yes", plan.sql)
    compile(starter.recipe_text("my-model", plan), "recipe.py", "exec")


def test_every_guess_is_written_beside_its_reason() -> None:
    plan = guess(customers(currency=["EUR"] * N), "customers", "churned", "signup")
    lines = starter.settings_text("my", plan, "churned", "team", "ann").splitlines()
    for one in plan.inputs:
        assert any(line.startswith((one.name, f'"{one.name}"')) and line.endswith(f"# {one.why}") for line in lines)
    assert any(line.startswith("# currency: left out, every row has the same value") for line in lines)


def test_a_project_without_a_file_gets_settings_to_fill_in() -> None:
    text = starter.settings_text("my", starter.EXAMPLE, starter.EXAMPLE_LABEL, "team", "ann")
    assert msgspec.convert(tomllib.loads(text), Settings).extract.label == starter.EXAMPLE_LABEL
    compile(starter.recipe_text("my", starter.EXAMPLE), "recipe.py", "exec")
