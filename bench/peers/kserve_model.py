"""The model behind KServe's Python server, which ships no scikit-learn runtime: a custom model, as its documentation has it."""

from __future__ import annotations

import os

import joblib
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class Bench(Model):
    def __init__(self) -> None:
        super().__init__("bench")
        self._model = joblib.load(os.environ["MODEL_FILE"])
        self.ready = True

    def predict(self, payload: InferRequest, headers: dict | None = None, response_headers: dict | None = None):
        scores = self._model.predict_proba(payload.inputs[0].as_numpy())[:, 1]
        output = InferOutput(name="score", shape=list(scores.shape), datatype="FP64", data=scores.tolist())
        return InferResponse(response_id=payload.id or "1", model_name=self.name, infer_outputs=[output])


if __name__ == "__main__":
    ModelServer().start([Bench()])
