"""The model behind BentoML, with its adaptive batching: at most 1000 rows a batch, as the largest request has."""

from __future__ import annotations

import os

import bentoml
import joblib
import numpy as np


@bentoml.service(workers=2, traffic={"timeout": 30}, logging={"access": {"enabled": False}})
class Bench:
    def __init__(self) -> None:
        self._model = joblib.load(os.environ["MODEL_FILE"])

    @bentoml.api(batchable=True, max_batch_size=1000, max_latency_ms=1000)
    def predict(self, rows: np.ndarray) -> np.ndarray:
        return self._model.predict_proba(rows)[:, 1]
