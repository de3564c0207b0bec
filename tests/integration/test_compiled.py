"""A compiled model in a real model server: the same answers, and nothing imported that it does not need."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tests.models_lab import Packaged, table

from interlock.core.errors import Tampered
from interlock.evaluation.proof import offline_server, prove
from interlock.model import golden
from interlock.model.manifest import Manifest
from interlock.model.runtimes import compiled
from interlock.training.dataset import Dataset

LOADED = """
import atexit, pathlib, runpy, sys
sys.argv = ["model_server", *sys.argv[2:]]
atexit.register(lambda: pathlib.Path({target!r}).write_text(" ".join(sys.modules)))
runpy.run_module("interlock.processes.model_server", run_name="__main__", alter_sys=True)
"""
HEAVY = {"sklearn", "scipy", "pandas", "treelite", "lightgbm", "skops", "joblib"}


def hist(data: Dataset) -> Any:
    trees = HistGradientBoostingClassifier(max_iter=20, early_stopping=False)
    return make_pipeline(StandardScaler(), trees).fit(data.features, data.label)


def with_ratio(raw: Any) -> Any:
    return raw.assign(ratio=raw["a"] / (1 + raw["c"].abs()))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Packaged:
    return Packaged(tmp_path_factory.mktemp("plain"), "binary", hist, table("binary"), positive="left")


def served(packaged: Packaged, folder: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The modules of a real server that has proved the package's rows."""
    python = folder / "python"
    (folder / "start.py").write_text(LOADED.format(target=str(folder / "modules")))
    python.write_text(f'#!/bin/sh\nshift\nexec "{sys.executable}" "{folder / "start.py"}" "$@"\n')
    python.chmod(0o755)
    manifest: Manifest = packaged.built.manifest
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(python))
        with offline_server(packaged.folder) as server:
            proof = prove(server, manifest, golden.decode(packaged.built.proof))
    assert proof.passed
    assert proof.start_seconds is not None
    assert proof.start_seconds > 0
    return set((folder / "modules").read_text().split())


def test_a_model_of_plain_columns_is_served_without_its_library(
    plain: Packaged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plain.built.manifest.runtime.compiled
    assert made is not None, plain.log
    assert min(made.speedup_1, made.speedup_64) > 1
    assert plain.log[-1].startswith("compiled: ")
    assert not HEAVY & served(plain, tmp_path, monkeypatch)
    pins = plain.built.files["requirements.txt"].decode()
    assert "lightgbm==" in pins
    assert "scikit-learn" not in pins
    assert "scikit-learn" in plain.built.manifest.libraries


def test_a_feature_function_needs_pandas_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = Packaged(tmp_path / "made", "binary", hist, table("binary"), features=with_ratio, positive="left")
    assert packaged.built.manifest.runtime.compiled is not None, packaged.log
    loaded = served(packaged, tmp_path, monkeypatch)
    assert "pandas" in loaded
    assert not {"sklearn", "skops", "lightgbm"} & loaded


def no_trees(data: Dataset) -> Any:
    return LogisticRegression().fit(data.features.fillna(0), data.label)


def categorical(data: Dataset) -> Any:
    trees = HistGradientBoostingClassifier(max_iter=2, categorical_features=["a"])
    return trees.fit(data.features.assign(a=data.features["a"].abs() // 1), data.label)


@pytest.mark.parametrize(
    ("train", "why"),
    [
        (categorical, "or has categorical columns"),
        (no_trees, "a LogisticRegression is no tree model"),
    ],
)
def test_what_cannot_be_compiled_stays_as_it_is_and_says_why(train: Any, why: str, tmp_path: Path) -> None:
    frame = table("binary").fillna(0)
    inputs = {name: "float" for name in frame if name != "label"}
    frame["a"] = frame["a"].abs()
    packaged = Packaged(tmp_path, "binary", train, frame, inputs=inputs)
    assert packaged.built.manifest.runtime.compiled is None
    assert packaged.log[-1].startswith("not compiled: ")
    assert why in packaged.log[-1]
    assert compiled.FILE not in packaged.built.files


@pytest.mark.parametrize("spoil", [{compiled.PLAN: b"{}"}, {compiled.FILE: b"no checkpoint"}], ids=["plan", "trees"])
def test_what_is_no_compiled_model_is_refused(plain: Packaged, spoil: dict[str, bytes]) -> None:
    with pytest.raises(Tampered, match="compiled model cannot be read"):
        compiled.load({**plain.built.files, **spoil})


def test_versions_of_the_plan_are_plain_data(plain: Packaged) -> None:
    plan = msgspec.json.decode(plain.built.files[compiled.PLAN])
    assert plan["columns"] == [0, 1, 2]
    assert [step["kind"] for step in plan["steps"]] == ["subtract", "divide"]
