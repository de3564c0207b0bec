"""Train the model in this environment: model.joblib and answers.json, its own P(positive) by rows a request.

python -m bench.peers.train FOLDER COUNT...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import joblib
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bench.project import rows, training_rows

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    trees = HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=0)
    model = make_pipeline(StandardScaler(), trees).fit(*training_rows())
    joblib.dump(model, folder / "model.joblib")
    answers = {count: model.predict_proba(rows(int(count)))[:, 1].tolist() for count in sys.argv[2:]}
    (folder / "answers.json").write_text(json.dumps(answers))
