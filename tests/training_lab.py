"""A small project that really trains: customers in a CSV, a recipe, people with keys, and its steps as real processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
from tests.house import House

from interlock.jobs.port import RunSpec
from interlock.jobs.records import Run, Runs
from interlock.jobs.runner import Runner
from interlock.registry.packages import PackageStore
from interlock.registry.versions import Versions
from interlock.store.database import Database
from interlock.training.pipeline import STEPS, Job
from interlock.warehouse.ducklake import open_warehouse

ROWS = 600
SETTINGS = """
model = "flight-delay"
recipe = "recipe:train"
positive = "left"
slices = ["plan"]

[extract]
id = "customer"
event_time = "signup"
label = "fate"
variables = { until = "2031-01-01" }
sql = '''
SELECT customer, signup::TIMESTAMP AT TIME ZONE 'UTC' AS signup, amount, visits, member, plan, fate, region
FROM customers WHERE signup < $until::TIMESTAMP
'''

[inputs]
amount = { type = "float", nullable = true }
visits = "int"
member = "bool"
plan = "category"

[split]
kind = "random"
group = "region"

[parameters]
strength = 1.0

[endpoint]
threshold = 0.4
"""
HEAD = """
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from interlock.training import features, recipe

CUT = 10
"""
FEATURES = """
@features
def columns(raw):
    return raw.assign(often=(raw["visits"] > CUT).astype(float), member=raw["member"].astype(float))
"""
RECIPE = """
@recipe(task="binary", features=columns)
def train(data, *, strength=1.0, unknown="ignore"):
    print("the recipe speaks")
    encoder = make_column_transformer((OneHotEncoder(handle_unknown=unknown), ["plan"]), remainder="passthrough")
    model = make_pipeline(encoder, SimpleImputer(), StandardScaler(), LogisticRegression(C=strength))
    return model.fit(data.features, data.label)
"""


class Lab:
    """The project, and what was registered in it."""

    def __init__(self, root: Path) -> None:
        self.house = House(root)
        self.project = self.house.project
        trust = f'\n[trust]\nroot = "{self.house.fingerprint}"\n'
        self.project.config.write_text(SETTINGS + trust)
        self.recipe("recipe", HEAD + FEATURES + RECIPE)
        self.database = Database(self.project.database, create=True)
        self.versions = Versions(self.database, PackageStore(self.project.packages))
        self.runs = Runs(self.database)
        customers(root / "customers.csv")
        open_warehouse(self.project.warehouse, create=True).load("customers", root / "customers.csv")
        self.log: list[str] = []

    def recipe(self, module: str, source: str) -> None:
        """Write one of the user's modules; one of that name of another project, read by this process, is forgotten."""
        sys.modules.pop(module, None)
        (self.project.root / f"{module}.py").write_text(source)

    def run(self, **spec: object) -> Run:
        """Carry a run to its end, every step in a process of its own."""
        run_id = self.runs.create(RunSpec("flight-delay", **spec), "ann")  # type: ignore[arg-type]  # its own fields
        command = [sys.executable, "-m", "interlock.processes.step"]
        Runner(self.project, self.runs, STEPS, command, dict(os.environ)).run(run_id)
        return self.runs.get(run_id)

    def job(self, run_id: str, name: str, recipe: str = "recipe", **spec: object) -> Job:
        """An attempt at a step in this process."""
        attempt = self.project.work / run_id / name
        attempt.mkdir(parents=True)
        settings = msgspec.structs.replace(self.project.settings(), recipe=f"{recipe}:train")
        asked = RunSpec("flight-delay", **spec)  # type: ignore[arg-type]
        return Job(self.project, settings, run_id, "ann", asked, attempt, self.log.append)

    def log_of(self, run: Run) -> dict[str, str]:
        """The log of each step's last attempt."""
        return {one.name: (self.project.root / one.log).read_text() for one in self.runs.attempts(run.id)}


def customers(path: Path) -> None:
    """Customers who leave more often the less they visit."""
    rng = np.random.default_rng(11)
    visits = rng.integers(0, 30, ROWS)
    plan = rng.choice(["free", "basic", "gold"], ROWS)
    left = rng.random(ROWS) < 1 / (1 + np.exp(0.25 * (visits - 10) + (plan == "gold")))
    table = {
        "customer": [f"c{i}" for i in range(ROWS)],
        "signup": pd.date_range("2030-01-01", periods=ROWS, freq="7h").strftime("%Y-%m-%d %H:%M:%S"),
        "amount": np.where(rng.random(ROWS) < 0.1, np.nan, rng.normal(50, 20, ROWS).round(2)),
        "visits": visits,
        "member": rng.random(ROWS) < 0.5,
        "plan": plan,
        "fate": np.where(left, "left", "stayed"),
        "region": rng.choice([f"r{i}" for i in range(80)], ROWS),
    }
    pd.DataFrame(table).to_csv(path, index=False)
