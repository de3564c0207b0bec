"""Models of a real MLflow server: the how-to's own lines, what is refused, what MLflow hears of it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.commands import Commands
from tests.foreign_lab import RAW, Elsewhere
from tests.mlflow_lab import Mlflow

from interlock.core.errors import Misconfigured, NotFound, Refused, Unavailable, Usage
from interlock.model.runtimes import RUNTIMES
from interlock.registry.mlflow import Server, find
from interlock.release import audit
from interlock.training import foreign

HOWTO = (Path(__file__).parents[2] / "docs" / "howto-register.md").read_text()
TRAINED = """
import pandas as pd, mlflow
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
rows = pd.read_csv({csv!r})
X, y = rows[["amount", "visits", "member", "plan"]], rows["fate"]
encoder = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["plan"]), remainder="passthrough")
model = make_pipeline(encoder, SimpleImputer(), LogisticRegression(max_iter=2000)).fit(X, y)
"""
OTHERS = """
import lightgbm, numpy as np, onnx, xgboost
from mlflow.models import infer_signature
pins = {{"pip_requirements": ["pandas"], "registered_model_name": "other"}}
numbers, left = X[["visits", "amount"]].astype(float), y == "left"
with mlflow.start_run() as run:
    mlflow.sklearn.log_model(model, name="pickled", serialization_format="cloudpickle", **pins)
    booster = xgboost.XGBClassifier(n_estimators=9).fit(numbers, left)
    mlflow.xgboost.log_model(booster, name="boosted", **pins)
    light = lightgbm.train({{"objective": "binary", "verbose": -1}}, lightgbm.Dataset(numbers, left), 9)
    mlflow.lightgbm.log_model(light, name="light", **pins)
    mlflow.onnx.log_model(onnx.load({onnx!r}), name="graph", signature=infer_signature(numbers), **pins)
mlflow.MlflowClient().set_registered_model_alias("other", "light", "3")
print(run.info.run_id)
"""


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    made = Elsewhere(tmp_path_factory.mktemp("elsewhere"), "churn")
    yield made
    made.lab.database.close()


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
    server = Mlflow(tmp_path_factory.mktemp("mlflow"))
    yield server
    server.stop()


def blocks(language: str, chapter: str) -> list[str]:
    """The code of a chapter of the how-to."""
    text = HOWTO.partition(f"## {chapter}\n")[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def trained(there: Elsewhere) -> str:
    """A script that has trained: `X`, `y`, `model`."""
    return TRAINED.format(csv=str(there.lab.project.root / "customers.csv"))


def typed(person: Commands, chapter: str) -> str:
    """Run a chapter's lines; what they printed."""
    said = ""
    for line in blocks("console", chapter)[0].splitlines():
        if line.startswith("interlock "):
            done = person.run(*shlex.split(line)[1:])
            assert done.returncode == 0, done.stdout + done.stderr
            said += done.stdout
    return said


def test_the_how_to_and_what_mlflow_hears(there: Elsewhere, mlflow: Mlflow, monkeypatch: pytest.MonkeyPatch) -> None:
    root, rows = there.lab.project.root, there.rows
    monkeypatch.chdir(root)
    (code,) = blocks("python", "From a notebook")
    exec(code, {"model": there.model.fit(rows[RAW], rows["fate"]), "X": rows[RAW]})
    person = Commands(root, there.people.folder, MLFLOW_TRACKING_URI=mlflow.url)
    said = typed(person, "From a notebook")
    assert "held-out rows" in said
    assert "registered from churn (sha256:" in said
    assert "MLflow" not in said

    (code,) = blocks("python", "From MLflow")
    mlflow.run(trained(there) + code.replace("    name=", '    pip_requirements=["pandas"],\n    name='))
    said = typed(person, "From MLflow")
    digest = there.lab.versions.get("churn", 2).package_digest
    assert "beside churn:1" not in said
    assert "compared with churn:1 on the same rows" in said
    assert "MLflow was told: alias champion, tags of churn 1" in said
    tags = {"interlock.version": "churn:2", "interlock.package_digest": digest}
    assert mlflow.version("churn", 1) == (["champion"], tags)
    origin = there.manifest(there.lab.versions.get("churn", 2)).lineage.origin
    assert origin is not None
    assert (origin.source, origin.server, origin.name, origin.version) == (
        "mlflow:models:/churn/1",
        mlflow.url,
        "churn",
        "1",
    )

    back = person.json("rollback", "churn", "--as", "olga", "--no-wait")
    assert back["arms"][0]["version"] == "churn:1"
    assert mlflow.version("churn", 1) == ([], tags)
    assert [entry.actor for entry in audit.entries(there.lab.database) if entry.action == "mlflow"] == [
        "rob",
        "olga",
        "olga",
    ]


def test_the_other_flavours(there: Elsewhere, mlflow: Mlflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    numbers = there.rows[["visits", "visits"]].to_numpy(np.float32)
    graph = to_onnx(
        LogisticRegression().fit(numbers, there.rows["fate"] == "left"), numbers[:1], options={"zipmap": False}
    )
    (tmp_path / "graph.onnx").write_bytes(graph.SerializeToString())
    run = mlflow.run(trained(there) + OTHERS.format(onnx=str(tmp_path / "graph.onnx"))).split()[-1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.url)

    with pytest.raises(Refused, match=r"model\.pkl of mlflow:models:/other/1 is a pickle") as caught:
        foreign.read_mlflow(find("mlflow:models:/other/1", os.environ), "mlflow:models:/other/1", "churn")
    assert (
        'serialization_format="skops"), or where it was trained: import interlock; interlock.save(' in caught.value.next
    )
    taken = {
        uri: foreign.read_mlflow(find(uri, os.environ), uri, "churn")
        for uri in (f"mlflow:runs:/{run}/boosted", "mlflow:models:/other@light", "mlflow:models:/other/4")
    }
    assert [one.runtime for one in taken.values()] == ["xgboost", "lightgbm", "onnx"]
    assert [one.origin.version for one in taken.values()] == ["", "3", "4"]
    assert taken["mlflow:models:/other/4"].columns == ("visits", "amount")
    for one in taken.values():
        RUNTIMES[one.runtime].load(one.files)
    made = foreign.register(there.lab.project, next(iter(taken.values())), "ann", there.lab.log.append)
    assert there.manifest(made).feature_columns == ("visits", "amount")  # of four raw inputs in another order
    assert there.report(made).metrics["auc"] > 0.7

    with pytest.raises(NotFound):
        find("mlflow:models:/other/9", os.environ)
    with pytest.raises(NotFound):
        find(f"mlflow:runs:/{run}/none", os.environ).read("MLmodel", 100)


def test_a_server_that_does_not_answer_stops_no_release(there: Elsewhere, mlflow: Mlflow) -> None:
    person = Commands(there.lab.project.root, there.people.folder)
    mlflow.stop()
    document = person.json("deploy", "churn:2", "--to", "churn", "--as", "champion", "--as", "olga", "--no-wait")
    assert document["arms"][0]["version"] == "churn:2"
    assert document["mlflow"].startswith("MLflow was not told (alias champion, tags of churn 1): MLflow at")
    (entry,) = [one for one in audit.entries(there.lab.database, "churn:2", last=1) if one.action == "mlflow"]
    assert "does not answer" in (entry.after or "")
    audit.verify(there.lab.database)


def test_addresses_and_names() -> None:
    with pytest.raises(Misconfigured, match="no MLflow server is named"):
        find("mlflow:models:/a/1", {})
    for wrong in ("mlflow:models:/a", "mlflow:models:/a/b/1", "mlflow:/a", "mlflow:runs:/r"):
        with pytest.raises(Usage, match="names no model"):
            find(wrong, {})
    with pytest.raises(Misconfigured, match="no address"):
        Server("file:///etc", {})
    assert Server("https://me:secret@host:5000/flow/", {}).url == "https://host:5000/flow"
    with pytest.raises(Unavailable, match="does not answer"):
        Server("http://127.0.0.1:9", {}).read("/", 1)
