"""A model trained elsewhere: saved, registered, judged like a trained one; and what is refused."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from tests.foreign_lab import RAW, Elsewhere

import interlock
from interlock.core.errors import (
    FourEyes,
    InterlockError,
    InvalidData,
    NotFound,
    Refused,
    Tampered,
    Usage,
)
from interlock.core.hashing import canonical
from interlock.registry.versions import Version
from interlock.release import audit
from interlock.release.review import decide
from interlock.training import foreign

NAME = "flight-delay"


def often(raw: Any) -> Any:
    return raw.assign(often=(raw["visits"] > 10).astype(float), member=raw["member"].astype(float))


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    made = Elsewhere(tmp_path_factory.mktemp("foreign"))
    yield made
    made.lab.database.close()


@pytest.fixture(scope="module")
def saved(there: Elsewhere) -> Path:
    rows = there.rows
    return interlock.save(
        there.model.fit(often(rows[RAW]), rows["fate"]), NAME, rows[[*RAW, "fate"]].head(80), label="fate",
        features=often, folder=there.folder / "saved",
    )  # fmt: skip


@pytest.fixture(scope="module")
def first(there: Elsewhere, saved: Path) -> Version:
    return there.register(saved)


def test_it_is_a_version_like_any_other(there: Elsewhere, saved: Path, first: Version) -> None:
    manifest, report = there.manifest(first), there.report(first)
    assert (first.name, first.author) == (f"{NAME}:1", "ann")
    assert manifest.signature.classes == ("stayed", "left")
    assert manifest.signature.inputs[3].categories == ("basic", "free", "gold")
    assert manifest.lineage.origin is not None
    assert manifest.lineage.origin.source == NAME
    assert "visits" in (there.lab.project.packages / first.package_digest[7:] / "features.py").read_text()
    assert report.rows.n == manifest.lineage.split.rows["test"]
    assert report.proof is not None
    assert report.proof.passed
    assert f"what {NAME} learnt from is unknown" in report.caveat
    assert report.metrics["auc"] > 0.75
    assert "answers 80 sample rows as where it was trained" in there.lab.log
    (entry,) = audit.entries(there.lab.database, f"{NAME}:1")
    assert (entry.action, entry.actor) == ("register", "ann")
    assert manifest.lineage.origin.digest in (entry.after or "")
    assert not list(there.lab.project.work.glob("*"))


def test_who_registered_may_not_approve(there: Elsewhere, first: Version) -> None:
    house = there.lab.house
    house.roles["ann"] = ("author", "reviewer")
    house.write_trust()
    with pytest.raises(FourEyes):
        decide(there.lab.project, there.lab.database, "ann", there.people, first.name, "approve", "mine")


def test_a_booster_is_held_against_the_champion(there: Elsewhere, first: Version) -> None:
    import lightgbm

    house, rows = there.lab.house, there.rows
    house.approve(first.package_digest)
    house.route({"champion": (first.package_digest, 10_000)})
    columns = ["visits", "amount", "member"]  # in another order than the project's, and fewer

    frame = rows[columns].astype(float)
    model = lightgbm.train(
        {"objective": "binary", "verbose": -1}, lightgbm.Dataset(frame, rows["fate"] == "left"), num_boost_round=20
    )
    with pytest.raises(Usage, match="does not tell its task"):
        interlock.save(model, NAME, frame, folder=there.folder)
    path = interlock.save(
        model, NAME, rows[RAW].head(30), task="binary", features=only_numbers, folder=there.folder / "booster"
    )
    second = there.register(path)
    report = there.report(second)
    assert report.against is not None
    assert report.against.name == f"{NAME}:1"
    assert f"{NAME} and {NAME}:1" in report.caveat
    assert there.manifest(second).feature_columns == tuple(columns)
    assert report.metrics["auc"] > 0.7


def only_numbers(raw: Any) -> Any:
    return raw[["visits", "amount", "member"]].astype(float)


class Copy:
    """A saved directory to be spoilt."""

    def __init__(self, saved: Path, folder: Path) -> None:
        self.path = Path(shutil.copytree(saved, folder / NAME))

    def index(self, **changes: Any) -> None:
        data = msgspec.json.decode((self.path / "saved.json").read_bytes())
        (self.path / "saved.json").write_bytes(canonical(data | changes))


def _as_pickle(copy: Copy) -> None:
    (copy.path / "model" / "model.skops").write_bytes(pickle.dumps(LogisticRegression()))


def _more(copy: Copy) -> None:
    (copy.path / "note.txt").write_text("hello")


def _link(copy: Copy) -> None:
    os.rename(copy.path / "golden.json", copy.path.parent / "golden.json")
    (copy.path / "golden.json").symlink_to(copy.path.parent / "golden.json")


def _outside(copy: Copy) -> None:
    copy.index(files=[{"path": "../golden.json", "size": 1, "digest": "sha256:0"}])


def _altered(copy: Copy) -> None:
    (copy.path / "features.py").write_text("__features__ = print\n")


def _huge(copy: Copy) -> None:
    os.truncate(copy.path / "golden.json", foreign.MAX_BYTES + 1)  # sparse


def _other_name(copy: Copy) -> None:
    copy.index(name="other")


def _future(copy: Copy) -> None:
    copy.index(format=2)


def _bare(copy: Copy) -> None:
    (copy.path / "saved.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_as_pickle, "is a pickle"),
        (_more, "holds note.txt"),
        (_link, "golden.json is a link"),
        (_outside, "no path inside"),
        (_altered, "features.py in flight-delay is not the file"),
        (_huge, "larger than 1024 MiB"),
        (_other_name, "was saved as other"),
        (_future, "unknown format"),
        (_bare, "no directory made by interlock.save"),
    ],
)
def test_a_spoilt_directory_is_refused_before_anything_is_loaded(
    saved: Path, tmp_path: Path, spoil: Any, words: str
) -> None:
    copy = Copy(saved, tmp_path)
    spoil(copy)
    with pytest.raises(Refused, match=words):
        foreign.read_saved(copy.path, NAME, NAME)


def test_a_pickle_by_any_name_is_refused_with_the_line_to_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / "model.onnx"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(Refused, match="pickle or joblib") as caught:
        foreign.read_saved(path, "model.onnx", NAME)
    assert caught.value.next.endswith('import interlock; interlock.save(model, "flight-delay", sample=X.head(100))')
    assert not (tmp_path / "ran").exists()
    with pytest.raises(NotFound):
        foreign.read_saved(tmp_path / "none", "none", NAME)


def _refused(there: Elsewhere, sample: pd.DataFrame, folder: Path, **more: Any) -> InterlockError:
    model = there.model.fit(sample, np.resize(["left", "stayed"], len(sample)))
    path = interlock.save(model, NAME, sample, folder=folder, **more)
    with pytest.raises(InterlockError) as caught:
        there.register(path)
    return caught.value


def test_what_does_not_fit_the_project_is_refused(there: Elsewhere, tmp_path: Path) -> None:
    rows = there.rows[RAW].head(60)
    assert "age is only in the sample" in _refused(there, rows.assign(age=1.5), tmp_path).message
    text = rows.assign(visits=rows["visits"].astype(str) + " times")
    model = make_pipeline(
        make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["plan", "visits"])), LogisticRegression()
    ).fit(text, np.resize(["left", "stayed"], 60))
    path = interlock.save(model, NAME, text, folder=tmp_path)
    with pytest.raises(Refused, match="the sample does not fit"):
        there.register(path)
    other = there.model.fit(rows, np.resize(["gone", "here"], 60))
    with pytest.raises(Refused, match=r"the model knows the classes \['gone', 'here'\]"):
        there.register(interlock.save(other, NAME, rows, folder=tmp_path))


def test_a_model_that_answers_otherwise_here_is_refused(there: Elsewhere, saved: Path, tmp_path: Path) -> None:
    copy = Copy(saved, tmp_path)
    golden = msgspec.json.decode((copy.path / "golden.json").read_bytes())
    golden["numbers"][7] += 1e-6
    data = msgspec.json.encode(golden)
    (copy.path / "golden.json").write_bytes(data)
    found = foreign.read_saved(saved, NAME, NAME)
    assert found.sample is not None
    rows = msgspec.json.decode(data, type=type(found.sample.rows))
    altered = msgspec.structs.replace(found, sample=msgspec.structs.replace(found.sample, rows=rows))
    with pytest.raises(Refused, match="sample row 7: where it was trained"):
        foreign.register(there.lab.project, altered, "ann", there.lab.log.append)
    with pytest.raises(Tampered):
        foreign.read_saved(copy.path, NAME, NAME)


def test_what_cannot_be_saved_says_so(there: Elsewhere, tmp_path: Path) -> None:
    rows = there.rows[RAW].head(60)
    model = there.model.fit(rows, np.resize(["left", "stayed"], 60))
    with pytest.raises(Usage, match="no DataFrame"):
        interlock.save(model, NAME, rows.to_numpy())
    with pytest.raises(Usage, match="cannot name a model"):
        interlock.save(model, "My Model", rows)
    with pytest.raises(InvalidData, match="have no zone"):
        interlock.save(model, NAME, rows.assign(at=pd.Timestamp("2030-01-01")))
    (tmp_path / NAME).mkdir()
    with pytest.raises(InterlockError, match="was not made by"):
        interlock.save(model, NAME, rows, folder=tmp_path)


NOTEBOOK = """
import sys
import pandas as pd
from sklearn.linear_model import LogisticRegression
import interlock

In = ["", "CUT = 1", "%%time is no Python", "def double(raw):\\n    return raw * CUT + 0 * raw\\n", "CUT = 2"]
for cell in (In[1], In[3], In[4]):
    exec(cell)
sys.modules["__main__"].__dict__.pop("__file__", None)
X = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0]})
model = LogisticRegression().fit(double(X), [0, 1, 0, 1])
print(interlock.save(model, "tiny", X, features=double).joinpath("features.py").read_text())
"""


def test_a_feature_function_from_a_notebooks_cells(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert "CUT = 2" in done.stdout
    assert "def double(raw)" in done.stdout


def test_without_the_extra_save_names_it_and_importing_does_nothing() -> None:
    code = (
        "import sys; before = set(sys.modules); import interlock; heavy = {'pandas', 'numpy', 'msgspec', 'sklearn'};"
        "assert not heavy & set(sys.modules); sys.modules['pandas'] = None\n"
        "try: interlock.save(None, 'x', None)\n"
        "except Exception as error: print(error.message, error.next)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == 'interlock.save needs pandas, which is not installed pip install "interlock[train]"'
