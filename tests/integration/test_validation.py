"""What is wrong with data is found before training, with the rows: rule by rule on frames, then in real runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.training_lab import Lab

from interlock.core.errors import InvalidData, Misconfigured
from interlock.core.settings import Settings
from interlock.jobs.client import Jobs
from interlock.jobs.port import RunSpec
from interlock.store.tables import runs
from interlock.training.extract import ExtractRecord
from interlock.training.leakage import tells_label
from interlock.training.pipeline import dry_run
from interlock.training.validation import KEPT, RULES, Last, Validation, examine, last_run
from interlock.warehouse.ducklake import open_warehouse

N = 2000
INPUTS = {
    "amount": {"type": "float", "nullable": True, "min": 0.0, "max": 1e6},
    "visits": "int",
    "member": "bool",
    "plan": {"type": "category", "categories": ["free", "gold"], "unseen": "refuse"},
    "note": "string",
    "seen": {"type": "timestamp", "nullable": True},
}


def settings(validation: dict[str, Any] | None = None, **changes: Any) -> Settings:
    made = {
        "model": "m", "recipe": "recipe:train", "inputs": INPUTS, "validation": validation or {},
        "extract": {"sql": "", "id": "customer", "event_time": "signup", "label": "fate"}, **changes,
    }  # fmt: skip
    return msgspec.convert(made, Settings)


def honest() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    visits = rng.integers(0, 30, N)
    return pd.DataFrame(
        {
            "customer": [f"c{i}" for i in range(N)],
            "signup": pd.date_range("2030-01-01", periods=N, freq="1h", tz="UTC"),
            "amount": np.where(rng.random(N) < 0.1, np.nan, rng.normal(500, 50, N)),
            "visits": visits,
            "member": rng.random(N) < 0.5,
            "plan": rng.choice(["free", "gold"], N),
            "note": rng.choice(["good", "bad", "late", "fine"], N),
            "seen": pd.date_range("2029-01-01", periods=N, freq="3h", tz="UTC"),
            "region": rng.choice([f"r{i}" for i in range(50)], N),
            "fate": np.where(rng.random(N) < 1 / (1 + np.exp(0.5 * (visits - 10))), "left", "stayed"),
        }
    )


def look(frame: pd.DataFrame, wanted: Settings | None = None, last: Last | None = None) -> Validation:
    return examine(wanted or settings(), record(len(frame)), frame, last)


def record(rows: int) -> ExtractRecord:
    return ExtractRecord("", "", {}, "customer", "signup", "fate", "", 1, rows, ())


def test_nothing_is_found_in_honest_data() -> None:
    found = look(honest(), last=Last("r", N // 2))
    assert found.findings == ()
    assert found.rules == RULES[:7]


def put(column: str, rows: list[int], value: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.astype({column: object})
        frame.loc[rows, column] = value
        return frame

    return change


def column(name: str, values: Callable[[pd.DataFrame], Any]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: frame.assign(**{name: values(frame)})


LEFT = "left"
WRONG: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str, list[int]]] = {
    "no time": (column("signup", lambda f: f.signup.where(f.index != 7)), "null:signup", [7]),
    "no label": (put("fate", [0, 1999], None), "null:fate", [0, 1999]),
    "null where none may be": (put("visits", [3, 5], None), "null:visits", [3, 5]),
    "an id twice": (put("customer", [9], "c8"), "unique:customer", [8, 9]),
    "text among numbers": (put("visits", [4, 1500], "many"), "type:visits", [4, 1500]),
    "a fraction": (put("visits", [4], 1.5), "type:visits", [4]),
    "infinite": (put("amount", [10], float("inf")), "type:amount", [10]),
    "a number among texts": (put("note", [2], 2.0), "type:note", [2]),
    "too low, too high": (column("amount", lambda f: f.amount.mask(f.index == 6, -1).mask(f.index == 8, 2e6)),
                          "range:amount", [6, 8]),
    "outside of a closed list": (put("plan", [11], "platinum"), "range:plan", [11]),
}  # fmt: skip


@pytest.mark.parametrize("name", list(WRONG))
def test_rows_that_are_wrong_are_named(name: str) -> None:
    change, said, rows = WRONG[name]
    frame = change(honest())
    (finding,) = look(frame).failed
    assert f"{finding.rule}:{finding.column}" == said
    assert finding.count == len(rows)
    assert [row["customer"] for row in finding.rows] == frame.customer[rows].tolist()
    assert all(finding.column in row for row in finding.rows)
    accepting = settings({"accept": [said]})
    assert look(frame, accepting).failed == []
    assert [one.verdict for one in look(frame, accepting).findings] == ["accepted"]


@hypothesis.settings(max_examples=25)
@given(st.sets(st.integers(0, 299), max_size=40))
def test_exactly_the_rows_that_do_not_fit_their_type_are_found(rows: set[int]) -> None:
    frame = honest().iloc[:300]
    frame = put("visits", sorted(rows), "?")(frame) if rows else frame
    found = [row["customer"] for one in look(frame).findings if one.rule == "type" for row in one.rows]
    assert found == [f"c{i}" for i in sorted(rows)]


def test_a_column_of_another_type_offends_as_a_whole() -> None:
    (finding,) = look(honest().assign(seen="yesterday")).failed
    assert (finding.rule, finding.count, len(finding.rows)) == ("type", KEPT, KEPT)
    assert "1000 or more of 2000 rows are no timestamp" in finding.text


LEAKS: dict[str, tuple[str, Callable[[pd.DataFrame], Any]]] = {
    "the id": ("id_copy:note", lambda f: f.customer),
    "the number in the id": ("id_copy:visits", lambda f: np.arange(N)),
    "the label as a number": ("label_copy:amount", lambda f: (f.fate == LEFT) * 3.0),
    "the label in other words": ("label_copy:note", lambda f: f.fate.map({"left": "gone", "stayed": "here"})),
    "two words for each": ("label_copy:note", lambda f: f.fate + f.member.astype(str)),
    "a score that knows": ("label_copy:amount", lambda f: 500 + (f.fate == LEFT) * 9 + np.linspace(0, 1, N)),
    "missing unless positive": ("label_copy:seen", lambda f: f.seen.where(f.fate == LEFT)),
}


@pytest.mark.parametrize("name", list(LEAKS))
def test_leaks_are_found(name: str) -> None:
    said, values = LEAKS[name]
    (finding,) = look(honest().assign(**{said.partition(":")[2]: values})).failed
    assert f"{finding.rule}:{finding.column}" == said
    assert {"customer", finding.column} <= set(finding.rows[0])


def test_a_number_that_follows_from_a_number_is_a_leak_and_a_good_guess_is_none() -> None:
    rng = np.random.default_rng(1)
    label = pd.Series(rng.normal(0, 1, N))
    assert tells_label(label * -2 + 1, label)
    assert tells_label(label.astype(str), label) == "equals the label"
    assert tells_label(label + rng.normal(0, 0.05, N), label) == ""


def test_columns_that_are_no_inputs_may_tell_the_label() -> None:
    assert look(honest().assign(left_at=lambda f: f.fate)).findings == ()


@pytest.mark.parametrize(("before", "fails"), [(900, True), (1000, False), (4000, False), (4001, True)])
def test_volume_is_held_against_the_last_run(before: int, fails: bool) -> None:
    found = look(honest(), last=Last("r1", before)).failed
    assert [one.rule for one in found] == (["volume"] if fails else [])
    assert look(honest(), settings({"volume_min": 0.1, "volume_max": 10}), Last("r1", before)).failed == []


def test_training_rows_of_the_tests_time_or_groups_fail_where_that_is_asked_for() -> None:
    asked = {"time_overlap": True, "group_overlap": True}

    def rules(kind: str) -> list[str]:
        return [one.rule for one in look(honest(), settings(asked, split={"kind": kind, "group": "region"})).failed]

    assert rules("random") == ["time_overlap", "group_overlap"]
    assert rules("time") == ["group_overlap"]
    assert rules("group") == ["time_overlap"]
    assert look(honest(), settings(split={"kind": "random", "group": "region"})).failed == []


def test_what_the_settings_cannot_mean_is_refused() -> None:
    with pytest.raises(Misconfigured, match="no rule 'nulls:amount'"):
        look(honest(), settings({"accept": ["nulls:amount"]}))
    with pytest.raises(Misconfigured, match="note is a string: min and max"):
        look(honest(), settings(inputs={**INPUTS, "note": {"type": "string", "min": 1}}))
    with pytest.raises(InvalidData, match="no column amount"):
        look(honest().drop(columns="amount"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("validated"))
    yield made
    made.database.close()


def test_a_leak_fails_the_run_with_its_rows_and_a_file(lab: Lab) -> None:
    text = lab.project.config.read_text()
    lab.project.config.write_text(text.replace('plan = "category"', 'plan = "category"\nfate = "category"'))
    run = lab.run()
    with pytest.raises(InvalidData, match=r"label_copy, fate: equals the label.*\n  customer c0, fate"):
        dry_run(lab.project, RunSpec("flight-delay"), lab.log.append)
    lab.project.config.write_text(text)
    assert run.state == "failed"
    assert run.error is not None
    assert run.error.code == "invalid_data"
    assert 'accept = ["label_copy:fate"] in [validation]' in run.error.next
    file = lab.project.root / run.error.message.rpartition("The rows: ")[2]
    written = msgspec.json.decode(file.read_bytes(), type=Validation)
    assert len(written.failed[0].rows) == written.rows == 600
    assert lab.log_of(run)["validate"].count("  customer c") == 20, (
        "ten rows where it is found, ten where it is refused"
    )
    shown = Jobs(lab.project, lab.database).show(run.id).validation
    assert shown is not None
    assert [(one["rule"], len(one["rows"])) for one in shown["findings"]] == [("label_copy", 10)]
    assert last_run(lab.database, RunSpec("flight-delay")) is None, "a run that failed is no measure"


def test_rows_that_the_extract_refuses_are_named_too(lab: Lab, tmp_path: Path) -> None:
    again = pd.read_csv(lab.project.root / "customers.csv").head(2)
    again.to_csv(tmp_path / "again.csv", index=False)
    open_warehouse(lab.project.warehouse).load("customers", tmp_path / "again.csv")
    run = lab.run()
    assert [one.name for one in lab.runs.attempts(run.id)] == ["extract"]
    assert run.error is not None
    assert "4 of 602 rows share theirs\n  customer c0\n  customer c0\n  customer c1" in run.error.message


def test_the_last_run_is_the_newest_that_succeeded_on_the_same_extract(lab: Lab) -> None:
    def ran(state: Any, rows: int, extract: str = "other") -> str:
        run_id = lab.runs.create(RunSpec("flight-delay", extract=extract), "ann")
        lab.runs.begin(run_id)
        text = msgspec.json.encode(Validation(rows, None, (), ())).decode()
        with lab.database.write() as connection:
            connection.execute(runs.update().where(runs.c.id == run_id).values(validation=text))
        lab.runs.end(run_id, state)
        return run_id

    found = ran("succeeded", 100), ran("succeeded", 200), ran("failed", 300), ran("succeeded", 400, "third")
    assert last_run(lab.database, RunSpec("flight-delay", extract="other")) == Last(found[1], 200)
    assert last_run(lab.database, RunSpec("another", extract="other")) is None
