"""A newcomer's first half hour with their own data: each command is the one that the command before printed."""

from __future__ import annotations

import csv
import json
import os
import random
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.house import free_port

ROWS = 3000
HEAD = ("customer_id", "signup", "plan", "country", "Monthly Spend", "calls", "last_seen", "currency", "churned")


def write_customers(path: Path) -> None:
    """What people have: a yes/no label, times without a zone, empty cells, an open category, columns of no use."""
    chance = random.Random(1)
    at = datetime(2025, 1, 1)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEAD)
        for i in range(ROWS):
            at += timedelta(minutes=chance.randint(5, 200))
            plan, calls = chance.choice(("basic", "plus", "pro")), chance.randint(0, 9)
            country = chance.choice(("de", "fr", *(f"x{k}" for k in range(15)))) if chance.random() > 0.05 else ""
            spend = round(chance.gauss(40, 15), 2) if chance.random() > 0.1 else ""
            churned = chance.random() < 0.1 + 0.08 * calls * (plan == "basic")
            seen = (at + timedelta(days=chance.randint(1, 90))).date()
            writer.writerow((f"c{i}", at, plan, country, spend, calls, seen, "EUR", "yes" if churned else "no"))


class Newcomer:
    """Somebody at a shell, with keys of their own: `cd` and `export` stay in force."""

    def __init__(self, home: Path) -> None:
        self.here = home
        self.environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith("INTERLOCK_")},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "INTERLOCK_KEYS_DIR": str(home / "keys"),
            "INTERLOCK_SERVE__GATEWAY_PORT": str(free_port()),
            "INTERLOCK_SERVE__GRPC_PORT": str(free_port()),
            "INTERLOCK_SERVE__CONTROL_PORT": str(free_port()),
        }

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        """Type a line."""
        return subprocess.run(
            line,
            shell=True,
            cwd=self.here,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def does(self, line: str) -> list[str]:
        """Type a line that must work; the lines that it prints as the next step."""
        word, _, rest = line.partition(" ")
        if word == "cd":
            self.here /= rest
            return []
        if word == "export":
            name, _, value = rest.partition("=")
            self.environment[name] = value
            return []
        done = self.run(line)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        _, found, after = done.stdout.partition("\nNext:  ")
        return [step.strip() for step in after.splitlines()] if found else []

    def json(self, line: str) -> Any:
        """What a line says with --json; it must be one document."""
        return json.loads(self.run(f"{line} --json").stdout)

    def says(self, line: str) -> str:
        """Why a line is refused; with its next step."""
        done = self.run(line)
        assert done.returncode in (1, 2), f"{line}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stderr


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    write_customers(tmp_path / "customers.csv")
    one = Newcomer(tmp_path)
    yield one
    if (one.here / ".interlock" / "up.json").exists():
        one.run("interlock down")


def test_alone_from_a_csv_to_an_explained_prediction(newcomer: Newcomer) -> None:
    steps = newcomer.does("interlock init my --from customers.csv --label churned --time signup --mode solo --as ann")
    assert steps == ["cd my", "export INTERLOCK_USER=ann", "interlock train --wait"]
    for step in steps[:2]:
        newcomer.does(step)
    settings = (newcomer.here / "interlock.toml").read_text()
    assert 'positive = "yes"' in settings
    assert "taken for UTC" in settings
    assert "# last_seen: left out, lies after signup" in settings

    (review,) = newcomer.does(steps[2])
    approve, _ = newcomer.does(review)
    (deploy,) = newcomer.does(approve)
    up, curl = newcomer.does(deploy)
    assert up == "interlock up"
    (predict,) = newcomer.does("interlock up --detach")

    answer = json.loads(newcomer.run(curl).stdout)["predictions"][0]
    assert answer["label"] in ("yes", "no")
    assert 0 <= answer["score"] <= 1
    (explain,) = newcomer.does(predict)
    (show,) = newcomer.does(explain)
    assert show == "interlock versions show my:1"
    first = explain.split()[-1]
    asked = newcomer.json("interlock predict my --sample --unit c17")
    assert asked["predictions"] == [answer]
    (newcomer.here / "labels.csv").write_text(
        f"prediction_id,label,at,revenue\n{asked['prediction_id']},yes,2027-01-01T00:00:00Z,3.5\n"
    )
    (explain,) = newcomer.does("interlock feedback load labels.csv --to my")
    (newcomer.here / "ids").write_text(f"{first}\n{asked['prediction_id']}\n")
    proof = newcomer.json("interlock reconcile my --ids ids --wait 20")
    assert (proof["whole"], proof["predictions"], proof["checked"], proof["missing"]) == (True, 3, 2, 0)
    told = newcomer.json(explain)
    row = told["rows"][0]
    assert (row["outputs"], row["label"], row["outcomes"]) == (answer, "yes", {"revenue": 3.5})
    assert (told["unit_id"], told["lineage"]["author"]) == ("c17", "ann")
    assert (told["approval"]["approver"], told["approval"]["self_approved"]) == ("ann", True)

    assert "already runs" in newcomer.says("interlock up")
    assert all(one["ok"] for one in newcomer.json("interlock doctor")["items"])
    assert newcomer.does("interlock down") == ["interlock up"]
    assert "interlock up" in newcomer.says("interlock predict my --sample")
    assert newcomer.json("interlock audit verify")["intact"] is True


def test_in_a_team_somebody_else_signs(newcomer: Newcomer) -> None:
    steps = newcomer.does("interlock init my --from customers.csv --label churned --time signup --as ann")
    for step in steps[:-1]:
        newcomer.does(step)
    assert 'mode = "team"' in (newcomer.here / "interlock.toml").read_text()
    (review,) = newcomer.does(steps[-1])
    generate, add = newcomer.does(review)
    assert "may not sign" in newcomer.says("interlock approve my:1 --as ann --reason mine")
    newcomer.does(generate)
    newcomer.does(add)
    approve, reject = newcomer.does(review)
    assert shlex.split(approve)[:5] == ["interlock", "approve", "my:1", "--as", "rita"]
    assert shlex.split(reject)[1] == "reject"
    (deploy,) = newcomer.does(approve)
    newcomer.does(deploy)
    trail = [(one["action"], one["actor"]) for one in newcomer.json("interlock audit")["items"]]
    assert trail[-3:] == [("trust", "ann"), ("approve", "rita"), ("deploy", "ann")]
    assert ("refused", "ann") in trail


@pytest.mark.parametrize(
    ("line", "why", "step"),
    [
        ("init my --from customers.csv --label chorned", "no column chorned", ""),
        ("init my --from nothing.csv --label churned", "no file nothing.csv", ""),
        ("init my --from customers.csv --label currency", "nothing to learn", ""),
        ("train", "no interlock.toml", "interlock init DIR"),
        ("init taken --from customers.csv --label churned", "not overwritten", "another directory"),
        ("init there --from customers.csv --label churned --as Ann", "cannot name a key", "lower-case"),
    ],
)
def test_what_cannot_work_is_said_and_leaves_nothing_behind(newcomer: Newcomer, line: str, why: str, step: str) -> None:
    (newcomer.here / "there").mkdir()
    (newcomer.here / "taken").mkdir()
    (newcomer.here / "taken" / "recipe.py").write_text("mine")
    said = newcomer.says(f"interlock {line}")
    assert why in said
    assert step in said
    assert not (newcomer.here / "my").exists()
    assert [path.name for path in (newcomer.here / "taken").iterdir()] == ["recipe.py"]
    left = [path.name for path in (newcomer.here / "there").iterdir()]
    assert left in ([], [".gitignore"])


def test_a_project_that_somebody_wrote_gets_keys_and_state_only(newcomer: Newcomer) -> None:
    newcomer.does("interlock init my --as ann")
    newcomer.does("cd my")
    config = newcomer.here / "interlock.toml"
    written = config.read_text().partition("\n[trust]")[0]
    other = newcomer.here.parent / "other"
    other.mkdir()
    (other / "interlock.toml").write_text(written)
    newcomer.does("cd ../other")
    steps = newcomer.does("interlock init . --as ann")
    assert steps[-1] == "interlock train --wait"
    assert (other / "interlock.toml").read_text().startswith(written.rstrip("\n"))
    assert sorted(path.name for path in other.iterdir()) == [".interlock", "interlock.toml"]
    assert "already" in newcomer.says("interlock init . --as ann")
