"""A warehouse filled with what gateways would have written: predictions and labels of made-up flights, a house beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from tests.house import INPUTS, House, rows

from interlock.core.assignment import bucket, owner_table
from interlock.core.clock import to_us
from interlock.core.ids import uuid7_text
from interlock.model.columns import to_lists
from interlock.predlog.record import Feedback, Field, Prediction, Schema
from interlock.predlog.rows import feedback_tables, prediction_tables
from interlock.registry.routes import RouteDocument
from interlock.store.database import Database
from interlock.warehouse.ducklake import open_warehouse

E = "flight-delay"
FIELDS = tuple(Field(one.name, one.type) for one in INPUTS)
OUTPUTS = (Field("score", "float"), Field("label", "bool"))


class Insight(House):
    """A house with a control database and a warehouse."""

    def __init__(self, root: Path, more: str = "") -> None:
        super().__init__(root)
        with self.project.config.open("a") as config:
            config.write(more)
        self.database = Database(self.project.database, create=True)
        self.warehouse = open_warehouse(self.project.warehouse, create=True, threads=1)
        self._gateway = uuid7_text()
        self._seq = 0

    def ask(
        self, route: RouteDocument, units: Iterable[str], at: datetime, unit_source: Any = "client", **fixed: Any
    ) -> list[Prediction]:
        """One answered request of one row a unit, a second apart, as the route sends them; `fixed` replaces fields."""
        names = list(units)
        owners = owner_table({arm.name: arm.ranges for arm in route.arms})
        inputs = to_lists(INPUTS, rows(len(names), seed=self._seq))
        made = []
        for i, unit in enumerate(names):
            arm = route.arm(owners[bucket(route.experiment.salt, unit)])
            self._seq += 1
            moment = to_us(at + timedelta(seconds=i))
            values: dict[str, Any] = {
                "prediction_id": uuid7_text(), "request_id": f"r{self._seq}", "endpoint": E, "received_at": moment,
                "event_time": moment, "unit_id": unit, "unit_source": unit_source, "experiment": route.experiment.id,
                "phase": route.experiment.phase, "arm": arm.name, "propensity": 0.5, "model": E, "version": arm.version,
                "package_digest": arm.package_digest, "route_revision": route.revision, "outcome": "answered", "reason": "",
                "latency_us": 900, "model_us": 500, "seq": self._seq, "rows": 1, "inputs": [[column[i]] for column in inputs],
                "outputs": [[0.4], [False]],
            }  # fmt: skip
            made.append(Prediction(**{**values, **fixed}))
        return made

    def record(self, predictions: list[Prediction], labels: dict[str, float] | None = None) -> None:
        """Write predictions, and labels by prediction id, as the recorder does."""
        schemas = {one.package_digest: Schema(one.package_digest, FIELDS, OUTPUTS) for one in predictions}
        tables = prediction_tables([(self._gateway, one) for one in predictions], schemas)
        times = {one.prediction_id: one.event_time + 3_600_000_000 for one in predictions}
        items = [
            Feedback(E, one, 0, "label", value, None, times[one], times[one]) for one, value in (labels or {}).items()
        ]
        self.warehouse.append({**tables, **feedback_tables(list(enumerate(items)))}, {})

    def close(self) -> None:
        """Let go of database and warehouse; nobody was asked over HTTP."""
        self.database.close()
        self.warehouse.close()


def judged(
    predictions: list[Prediction], noise: Callable[[Prediction], float], seed: int
) -> tuple[list[Prediction], dict[str, float]]:
    """Labels with a chance that each unit has, and scores that miss this chance by the prediction's noise."""
    from msgspec.structs import replace

    rng = np.random.default_rng(seed)
    answered, labels = [], {}
    for one in predictions:
        chance = 0.1 + 0.8 * (bucket("chance", one.unit_id) / 10_000)
        score = float(np.clip(chance + rng.normal(0, noise(one)), 0.001, 0.999))
        answered.append(replace(one, outputs=[[score], [score >= 0.5]]))
        labels[one.prediction_id] = float(rng.random() < chance)
    return answered, labels
