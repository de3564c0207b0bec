"""A project with a release standard, a champion that serves, its log, and candidates of which most are bad on purpose."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from tests.training_lab import SETTINGS, Lab

from interlock.core import signing
from interlock.core.clock import to_us
from interlock.core.files import write_atomic
from interlock.core.ids import uuid7_text
from interlock.core.settings import Settings
from interlock.evaluation import evaluate, replay
from interlock.evaluation.proof import OfflineServer, offline_server
from interlock.evaluation.report import Proof
from interlock.gateway.arms import schema_of
from interlock.model.frames import from_frame
from interlock.model.package import verify
from interlock.model.predictor import Predictor
from interlock.predlog.record import Feedback, Prediction
from interlock.predlog.rows import feedback_tables, prediction_tables
from interlock.registry.routes import Parameters
from interlock.release.keys import Keys
from interlock.training.pipeline import run_step
from interlock.warehouse.ducklake import open_warehouse

ROWS, LOGGED = 4000, 400
E = "flight-delay"
THRESHOLD = 0.4
STANDARD = """
[evaluation]
sensitive = "region"

[skew]
key = "request_id"

[standard]
require = ["skew"]
rules = [
    { metric = "auc", min = 0.75, max = 0.97, margin = 0.02, slices = true },
    { metric = "ece", max = 0.06 },
    { metric = "positive_rate", margin = 0.08 },
    { metric = "rows", min = 300 },
    { metric = "equalised_odds", max = 0.25 },
    { metric = "drift", max = 0.2 },
    { metric = "package_mb", max = 0.5 },
    { metric = "latency_ms", max = 500 },
    { metric = "changed", max = 0.1 },
    { metric = "harmed", max = 0.1 },
    { metric = "unsupported", max = 0.01 },
    { metric = "skew", max = 0.02 },
]
"""
RECIPE = """
import os
import time

import numpy as np
from sklearn.linear_model import LogisticRegression

from interlock.training import recipe


class Leaving:
    def __init__(self, bias, weights, more):
        self.bias, self.weights, self.more = bias, weights, more

    def predict(self, frame):
        time.sleep(len(frame) * float(os.environ.get("SLOW", "0")) * self.more.get("slow", 0))
        gold = (frame["plan"] == "gold").to_numpy(float)
        visits, member = frame["visits"].to_numpy(float), frame["member"].to_numpy(float)
        z = self.bias + self.weights[0] * visits + self.weights[1] * gold + self.weights[2] * member
        z = z * self.more.get("sharp", 1.0) + self.more.get("shift", 0.0) + self.more.get("members", 0.0) * (member - 0.5)
        z = np.where((gold == 1.0) & bool(self.more.get("turned", False)), -z, z)
        if "noise" in self.more:
            z = z + np.random.default_rng().normal(0, self.more["noise"], len(z))
        return 1 / (1 + np.exp(-z))


@recipe(task="binary")
def train(data, *, more={}, without=(), ballast=0):
    frame = data.features
    parts = {"visits": frame["visits"], "gold": frame["plan"] == "gold", "member": frame["member"]}
    columns = np.column_stack([np.asarray(one, float) * (name not in without) for name, one in parts.items()])
    fitted = LogisticRegression(C=10.0).fit(columns, data.label)
    turn = 1.0 if fitted.classes_[1] == "left" else -1.0
    model = Leaving(float(turn * fitted.intercept_[0]), [float(turn * w) for w in fitted.coef_[0]], more)
    if ballast:
        model.ballast = np.random.default_rng(1).normal(size=ballast)
    return model
"""


class PlantedLab(Lab):
    """Customers of whom those who visit seldom leave. Version 1 is champion and has answered `LOGGED` of them."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        super().__init__(root)
        text = SETTINGS.replace('group = "region"\n', "").replace("[parameters]\nstrength = 1.0\n", "")
        text = text.replace("SELECT customer", "SELECT customer, coupon")
        self.project.config.write_text(f'{text}{STANDARD}\n[trust]\nroot = "{self.house.fingerprint}"\n')
        self.recipe("recipe", RECIPE)
        self.table = table()
        self.table.to_csv(root / "customers.csv", index=False)
        self.warehouse = open_warehouse(self.project.warehouse, threads=1)
        self.warehouse.load("customers", root / "customers.csv", replace=True)
        self._patch = patch
        self.people = Keys(root.parent / "people")
        for name, key in {**self.house.keys, "root-project": self.house.root_key}.items():
            write_atomic(self.people.folder / name, signing.private_pem(key), 0o600)
            write_atomic(self.people.folder / f"{name}.pub", signing.public_text(key.public_key()).encode())
        self.train("champion", without=["member"])
        self.champion = self.versions.get(E, 1).package_digest
        self.house.approve(self.champion)
        self.house.route({"champion": (self.champion, 10_000)}, parameters=Parameters(threshold=THRESHOLD))
        self.answer()
        self.warehouse.close()

    def train(
        self,
        run: str,
        *,
        proved: bool = False,
        sql: tuple[str, str] = ("", ""),
        settings: dict[str, Any] | None = None,
        **parameters: Any,
    ) -> str:
        """All five steps in this process; the version's name. `sql`: what stands in the place of what in the extract.

        `proved`: through a real model server; else the proof is taken as made, which the candidate that fails it shows.
        """
        with self._patch.context() as patch:
            if not proved:
                taken = Proof(True, 1, ("oip-json",), 1e-9, 0.0, 1.0)
                patch.setattr(evaluate, "offline_server", lambda _: nullcontext())
                patch.setattr(evaluate, "prove", lambda *_: taken)
            changed, steps = (
                self.settings(sql, settings or {}),
                ["extract", "validate", "train", "evaluate", "register"],
            )
            if run != "champion" and not sql[0] and not settings:  # the same question has the same answer
                shutil.copytree(self.project.work / "champion" / "extract", self.project.work / run / "extract")
                steps = steps[2:]
            for step in steps:
                job = self.job(run, f"{step}-1", parameters=parameters)
                run_step(msgspec.structs.replace(job, settings=changed), step)
        return self.versions.all()[-1].name

    def settings(self, sql: tuple[str, str], more: dict[str, Any]) -> Settings:
        """The project's, changed for one candidate."""
        found = self.project.settings()
        assert sql[0] in found.extract.sql
        extract = msgspec.structs.replace(
            found.extract, sql=found.extract.sql.replace(*sql) if sql[0] else found.extract.sql
        )
        return msgspec.structs.replace(found, extract=extract, **more)

    def answer(self) -> None:
        """The champion answers customers, as gateways log it, and what became of them comes back as labels."""
        package = verify(self.versions.packages.find(self.champion))
        signature, asked = package.manifest.signature, self.table.tail(LOGGED).reset_index(drop=True)
        arrays = from_frame(signature.inputs, asked)
        scores = Predictor(package).predict(arrays)[:, 0].tolist()
        schema, predictions = schema_of(self.champion, signature), []
        start, gateway = to_us(pd.Timestamp("2032-01-01", tz="UTC").to_pydatetime()), uuid7_text()
        columns = [column.tolist() for column in arrays]
        for at, score in enumerate(scores):
            when, label = start + at * 60_000_000, signature.classes[int(score >= THRESHOLD)]
            values: dict[str, Any] = {
                "prediction_id": uuid7_text(), "request_id": asked["customer"][at], "endpoint": E, "received_at": when,
                "event_time": when, "unit_id": asked["customer"][at], "unit_source": "client", "experiment": "", "phase": 1,
                "arm": "champion", "propensity": 1.0, "model": E, "version": 1, "package_digest": self.champion,
                "route_revision": 1, "outcome": "answered", "reason": "", "latency_us": 900, "model_us": 500, "seq": at + 1,
                "rows": 1, "inputs": [[column[at]] for column in columns],
                "outputs": [[score] if one.name == "score" else [label] for one in schema.outputs],
            }  # fmt: skip
            predictions.append(Prediction(**values))
        feedback = [
            Feedback(E, one.prediction_id, 0, "label", None, fate, one.event_time, one.received_at)
            for one, fate in zip(predictions, asked["fate"], strict=True)
        ]
        tables = prediction_tables([(gateway, one) for one in predictions], {self.champion: schema})
        self.warehouse.append({**tables, **feedback_tables(list(enumerate(feedback)))}, {})


class Servers:
    """Real model servers for replays, each started once."""

    def __init__(self, patch: pytest.MonkeyPatch, stack: Any) -> None:
        self._started: dict[Path, OfflineServer] = {}
        self._stack = stack
        patch.setattr(replay, "offline_server", self._served)

    def _served(self, package: Path) -> Any:
        if package not in self._started:
            self._started[package] = self._stack.enter_context(offline_server(package))
        return nullcontext(self._started[package])


def table() -> pd.DataFrame:
    """Customers; `region` is what must not decide, and is nearly who is a member."""
    rng = np.random.default_rng(23)
    visits, member = rng.integers(0, 30, ROWS), rng.random(ROWS) < 0.5
    plan = rng.choice(["free", "basic", "gold"], ROWS)
    left = rng.random(ROWS) < 1 / (1 + np.exp(0.25 * (visits - 12) + (plan == "gold") - 0.2 * member))
    return pd.DataFrame(
        {
            "customer": [f"c{i}" for i in range(ROWS)],
            "signup": pd.date_range("2030-01-01", periods=ROWS, freq="2h").strftime("%Y-%m-%d %H:%M:%S"),
            "coupon": rng.normal(0, 1, ROWS).round(3),
            "amount": np.where(rng.random(ROWS) < 0.1, np.nan, rng.normal(50, 20, ROWS).round(2)),
            "visits": visits,
            "member": member,
            "plan": plan,
            "fate": np.where(left, "left", "stayed"),
            "region": np.where(member ^ (rng.random(ROWS) < 0.1), "north", "south"),
        }
    )
