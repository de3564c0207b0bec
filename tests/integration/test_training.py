"""From a table to a registered, evaluated version; and what does not become one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import select
from tests.commands import Commands
from tests.training_lab import FEATURES, HEAD, RECIPE, ROWS, Lab

from interlock.cli import run
from interlock.core.errors import Misconfigured, RecipeFailed, Refused, Usage
from interlock.core.hashing import digest
from interlock.core.settings import ExtractSettings, SplitSettings
from interlock.evaluation.proof import offline_server, prove
from interlock.evaluation.report import Report, decode
from interlock.evaluation.subjects import evaluate_version
from interlock.jobs.port import RunSpec
from interlock.jobs.records import Run
from interlock.model import golden
from interlock.model.package import verify
from interlock.model.predictor import Predictor
from interlock.model.profile import decode as read_profile
from interlock.registry import evaluations
from interlock.registry.routes import Parameters
from interlock.release import audit
from interlock.store.tables import extracts
from interlock.training.pipeline import Job, dry_run, run_step


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("training"))
    yield made
    made.database.close()


@pytest.fixture(scope="module")
def first(lab: Lab) -> Run:
    """The first run, all steps as real processes."""
    return lab.run()


@pytest.fixture(scope="module")
def second(lab: Lab, first: Run) -> Run:
    """A run while the first version is champion, with another parameter."""
    champion = lab.versions.get("flight-delay", 1).package_digest
    lab.house.approve(champion)
    lab.house.route({"champion": (champion, 10_000)}, parameters=Parameters(threshold=0.3))
    return lab.run(parameters={"strength": 0.01})


def report_of(lab: Lab, version: int) -> Report:
    return decode(evaluations.latest(lab.database, lab.versions.get("flight-delay", version).package_digest).report)


def test_a_run_registers_a_version(lab: Lab, first: Run) -> None:
    assert first.state == "succeeded", first.error
    assert first.version == 1
    version = lab.versions.get("flight-delay", 1)
    manifest = verify(lab.versions.packages.find(version.package_digest), version.package_digest).manifest
    assert version.label == f"0.0.0-{manifest.lineage.snapshot}.{manifest.lineage.split.digest[7:15]}"
    assert manifest.signature.classes == ("stayed", "left")
    assert manifest.signature.inputs[3].categories == ("basic", "free", "gold")
    assert manifest.feature_columns == ("amount", "visits", "member", "plan", "often")
    assert manifest.lineage.parameters == {"strength": 1.0, "unknown": "ignore"}
    assert manifest.lineage.run == first.id
    assert manifest.lineage.recipe_digest == digest(GOOD.encode())
    assert sum(manifest.lineage.split.rows.values()) == ROWS
    assert manifest.author.keyid
    assert "scikit-learn" in manifest.libraries
    assert "the recipe speaks" in lab.log_of(first)["train"]


def test_its_evaluation_is_kept_with_a_proof(lab: Lab, first: Run) -> None:
    report = report_of(lab, 1)
    assert report.subject.version == first.version
    assert report.against is None
    assert "no champion" in report.note
    assert report.threshold == 0.4
    assert report.proof is not None
    assert report.proof.rows == report.rows.n
    assert report.proof.codecs == ("oip-json", "oip-binary", "grpc", "scoring-json", "csv", "batch")
    assert report.metrics["auc"] > 0.75 > report.baseline["auc"] == 0.5
    assert {one.value for one in report.slices} == {"basic", "free", "gold"}


def test_its_package_holds_what_serving_and_monitoring_need(lab: Lab, first: Run) -> None:
    package = verify(lab.versions.packages.find(lab.versions.get("flight-delay", 1).package_digest))
    assert "CUT = 10" in package.files["features.py"].decode()
    assert "LogisticRegression" not in package.files["features.py"].decode()
    profile = read_profile(package.files["profile.json"])
    assert set(profile.inputs) == {"amount", "visits", "member", "plan"}
    assert profile.scores["score"].n == package.manifest.lineage.split.rows["test"]
    assert "scikit-learn==" in package.files["requirements.txt"].decode()
    assert Predictor(package).digest == package.digest


def test_the_extract_is_recorded_and_the_trail_begins(lab: Lab, first: Run) -> None:
    version = lab.versions.get("flight-delay", 1)
    with lab.database.read() as connection:
        row = connection.execute(select(extracts)).one()
    assert row.digest == lab.versions.manifest(version).lineage.extract_digest
    assert (lab.project.root / row.path).is_file()
    (entry,) = audit.entries(lab.database, "flight-delay:1")
    assert (entry.action, entry.actor) == ("register", "ann")


def test_a_second_version_is_held_against_the_champion(lab: Lab, second: Run) -> None:
    assert second.version == 2, second.error
    assert lab.versions.get("flight-delay", 2).label.startswith("0.0.1-")
    report = report_of(lab, 2)
    assert report.against is not None
    assert report.against.name == "flight-delay:1"
    assert report.threshold == 0.3
    assert report.rows == msgspec.structs.replace(report_of(lab, 1).rows, extract_digest=report.rows.extract_digest)
    assert {one.metric for one in report.paired} >= {"auc", "brier", "log_loss"}
    assert all(one.n == report.rows.n for one in report.paired)
    assert report.against_metrics["brier"] == pytest.approx(report_of(lab, 1).metrics["brier"])
    assert {one.input: one.verdict for one in report.shifts} == dict.fromkeys(
        ("amount", "visits", "member", "plan"), "too small"
    )
    assert report.disagreements
    assert report.confusion is not None
    assert report.confusion.champion is not None
    assert report.importance is not None
    assert report.importance.inputs[0].input == "visits"
    assert {name for name, one in report.intervals.items() if one.low <= report.metrics[name] <= one.high} >= {
        "auc",
        "brier",
    }


def test_a_new_evaluation_is_told_in_the_trail(lab: Lab, second: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "flight-delay:1", "--project", str(lab.project.root), "--json"]
    assert run(words) == 0
    told = msgspec.json.decode(capsys.readouterr().out)
    entry = audit.entries(lab.database, "flight-delay:1")[-1]
    assert (entry.action, entry.values[1]["evaluation"]) == ("evaluate", told["evaluation"])


def test_a_review_writes_a_page_and_a_card(
    lab: Lab, second: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, card = tmp_path / "out" / "review.html", tmp_path / "card.md"
    words = ["review", "flight-delay:2", "--project", str(lab.project.root), "--html", str(page), "--card", str(card)]
    assert run([*words, "--json"]) == 0
    told = msgspec.json.decode(capsys.readouterr().out)
    assert told["wrote"] == [str(page), str(card)]
    text = page.read_text()
    assert "compared with flight-delay:1" in text
    assert "CUT = 10" in text
    assert told["evaluation"] in text
    assert card.read_text().startswith("---\nlibrary_name: sklearn\n")


def test_two_versions_are_evaluated_again_on_identical_rows(lab: Lab, second: Run) -> None:
    report, found = evaluate_version(lab.project, lab.database, "flight-delay:1", "flight-delay:2", lab.log.append)
    assert report.against is not None
    assert (report.subject.version, report.against.version) == (1, 2)
    assert report.proof is not None
    assert report.metrics == report_of(lab, 2).against_metrics
    assert evaluations.latest(lab.database, report.subject.package_digest).digest == found


def test_registering_again_changes_nothing(lab: Lab, second: Run) -> None:
    before = (lab.versions.all(), audit.entries(lab.database))
    report = evaluations.latest(lab.database, lab.versions.get("flight-delay", 2).package_digest).report
    job = lab.job(second.id, "register-2")
    evaluated = job.folder / "evaluate"
    unregistered = msgspec.json.decode(report)
    unregistered["subject"]["version"] = 0
    (evaluated / "report.json").write_bytes(msgspec.json.encode(unregistered))
    run_step(job, "register")
    assert (lab.versions.all(), audit.entries(lab.database)) == before
    assert len(list(lab.project.packages.iterdir())) == 2


def test_a_recipe_that_raises_fails_the_run_at_that_step(lab: Lab, second: Run) -> None:
    run = lab.run(parameters={"strength": -1})
    assert run.state == "failed"
    assert run.error is not None
    assert run.error.code == "recipe_failed"
    assert [(one.name, one.state) for one in lab.runs.attempts(run.id)] == [
        ("extract", "succeeded"),
        ("validate", "succeeded"),
        ("train", "failed"),
    ]
    assert "InvalidParameterError" in run.error.message
    assert "Traceback" in lab.log_of(run)["train"]
    assert len(lab.versions.all()) == len(list(lab.project.packages.iterdir())) == 2


@pytest.fixture(scope="module")
def extracted(lab: Lab, first: Run) -> Path:
    """What the step `extract` published."""
    run_step(lab.job("extracted", "extract-1"), "extract")
    return lab.project.work / "extracted" / "extract"


GOOD = HEAD + FEATURES + RECIPE
FIT = "model.fit(data.features, data.label)"


def instead(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


BROKEN = {
    "nothing": ("returned nothing", instead("return " + FIT, FIT)),
    "no_model": ("returned a DataFrame, which has no predict_proba", instead("return " + FIT, "return data.features")),
    "not_fitted": ("was not fitted", instead("return " + FIT, "return model")),
    "others": (
        r"other columns .*\(often\)",
        instead(FIT, 'model.fit(data.features.drop(columns="often"), data.label)'),
    ),
    "no_names": (
        "not on columns with names",
        instead(FIT, "LogisticRegression().fit(data.features[['visits']].to_numpy(), data.label)"),
    ),
    "own_step": (
        r"holds broken_own_step\.own, which cannot be stored safely",
        instead("SimpleImputer(),", "SimpleImputer(), FunctionTransformer(own),")
        + "\n\ndef own(values):\n    return values\n",
    ),
    "lambda": ("cannot be stored", instead("SimpleImputer(),", "SimpleImputer(), FunctionTransformer(lambda x: x),")),
    "no_null": (
        "missing value in input 'amount'",
        instead("SimpleImputer(), ", "").replace(
            "raw.assign(", 'raw.assign(amount=raw["amount"].fillna(1) if len(raw) > 1 else raw["amount"], '
        ),
    ),
    "drops_rows": ("returned [0-9]+ rows for 600", instead("return raw.", "return raw.dropna().")),
    "raises": ("the feature function raised KeyError", instead('raw["visits"]', 'raw["absent"]')),
    "not_marked": ("no function train marked", instead("@recipe", "# @recipe")),
    "syntax": ("raised SyntaxError", "def train(:\n"),
    "leaves": ("raised SystemExit", "import sys\nsys.exit(3)\n"),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_what_cannot_be_served_is_refused_in_training(lab: Lab, extracted: Path, name: str) -> None:
    said, source = BROKEN[name]
    lab.recipe(f"broken_{name}", source)
    job = lab.job(f"broken-{name}", "train-1", f"broken_{name}")
    shutil.copytree(extracted, job.folder / "extract")
    with pytest.raises(RecipeFailed, match=said):
        run_step(job, "train")
    assert not (job.folder / "train").exists()


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"strenth": 1.0}, r"no parameter strenth \(known: strength, unknown\)"),
        ({"unknown": "error"}, "input 'plan' makes the model raise"),
        ({"strength": float("nan")}, "cannot be written down"),
    ],
    ids=["unknown parameter", "unseen category", "not a number"],
)
def test_parameters_are_checked(lab: Lab, extracted: Path, parameters: dict[str, Any], said: str) -> None:
    job = lab.job(f"parameters-{said[:9].strip()}", "train-1", parameters=parameters)
    shutil.copytree(extracted, job.folder / "extract")
    with pytest.raises(RecipeFailed, match=said):
        run_step(job, "train")


OWN = """
import numpy as np

from interlock.training import recipe


class Visits:
    def __init__(self, middle):
        self.middle = middle

    def predict(self, frame):
        return 1 / (1 + np.exp(0.25 * (frame["visits"] - self.middle)))


@recipe(task="binary")
def train(data, *, strength):
    return Visits(float(data.features["visits"].median()))
"""


def test_a_model_of_own_code_is_shown_to_who_reviews_it(lab: Lab, extracted: Path, tmp_path: Path) -> None:
    lab.recipe("own", OWN)
    job = lab.job("own", "train-1", "own")
    shutil.copytree(extracted, job.folder / "extract")
    run_step(job, "train")
    for step in ("evaluate", "register"):
        run_step(lab.job("own", f"{step}-1", "own"), step)
    name = lab.versions.all()[-1].name
    lab.house.write_trust()
    interlock = Commands(lab.project.root, tmp_path)
    shown = interlock.run("versions", "show", name).stdout
    assert "the project's own code, model/predictor.py" in shown
    assert interlock.json("versions", "show", name)["start_seconds"] > 0
    reviewed = interlock.json("review", name)
    assert "class Visits" in reviewed["code"]
    assert "class Visits" in interlock.run("review", name).stdout


def test_a_requirement_that_is_not_there_is_named(lab: Lab, extracted: Path) -> None:
    job = lab.job("requirement", "train-1")
    shutil.copytree(extracted, job.folder / "extract")
    settings = msgspec.structs.replace(job.settings, requirements=("no-such-package",))
    with pytest.raises(Misconfigured, match="no-such-package, which is not installed"):
        run_step(msgspec.structs.replace(job, settings=settings), "train")


def test_an_impure_feature_function_has_no_proof(lab: Lab, extracted: Path) -> None:
    lab.recipe(
        "impure",
        HEAD + FEATURES.replace("raw.assign(", 'raw.assign(amount=raw["amount"] - raw["amount"].mean(), ') + RECIPE,
    )
    job = lab.job("impure", "train-1", "impure")
    shutil.copytree(extracted, job.folder / "extract")
    run_step(job, "train")
    with pytest.raises(RecipeFailed, match="golden request") as caught:
        run_step(lab.job("impure", "evaluate-1", "impure"), "evaluate")
    assert "pure" in caught.value.next
    assert not (job.folder / "evaluate").exists()


OTHER_TASKS = {
    "regression": ("amount", "amount IS NOT NULL", "Ridge()", {"rmse", "mae", "r2", "bias"}),
    "multiclass": ("plan", "true", "RandomForestClassifier(20, random_state=0)", {"accuracy", "macro_f1", "log_loss"}),
}


@pytest.mark.parametrize("task", list(OTHER_TASKS))
def test_other_tasks_go_the_same_way(lab: Lab, task: str) -> None:
    label, where, model, metrics = OTHER_TASKS[task]
    lab.recipe(
        f"other_{task}",
        "from sklearn.ensemble import RandomForestClassifier\nfrom sklearn.linear_model import Ridge\n"
        f"from interlock.training import recipe\n\n@recipe(task={task!r})\ndef train(data):\n"
        f"    return {model}.fit(data.features, data.label)\n",
    )
    sql = f"SELECT customer, signup::TIMESTAMP AT TIME ZONE 'UTC' AS signup, visits, member, {label} FROM customers WHERE {where}"
    question = ExtractSettings(sql, "customer", "signup", label)

    def step(name: str) -> Job:
        job = lab.job(task, f"{name}-1", f"other_{task}")
        settings = msgspec.structs.replace(
            job.settings, extract=question, inputs={"visits": "int", "member": "bool"}, parameters={}, slices=(),
            split=SplitSettings("time"), positive=None,
        )  # fmt: skip
        run_step(msgspec.structs.replace(job, settings=settings), name)
        return job

    for name in ("extract", "train"):
        step(name)
    job = step("evaluate")
    report = decode((job.folder / "evaluate" / "report.json").read_text())
    assert set(report.metrics) == metrics
    assert set(report.intervals) == metrics
    assert report.reliability
    assert bool(report.residuals) == (task == "regression")
    assert (report.confusion is None) == (task == "regression")
    assert report.importance is not None
    assert report.importance.metric == ("rmse" if task == "regression" else "log_loss")
    assert report.proof is not None
    profile = read_profile((job.folder / "train" / "package" / "profile.json").read_bytes())
    assert set(profile.scores) == ({"value"} if task == "regression" else {"basic", "free", "gold"})


def test_an_answer_that_differs_by_a_hair_is_no_proof(lab: Lab, first: Run) -> None:
    package = verify(lab.versions.packages.find(lab.versions.get("flight-delay", 1).package_digest))
    rows = golden.decode(package.files[golden.FILE])
    wrong = [*rows.numbers[:3], rows.numbers[3] * (1 + 1e-8), *rows.numbers[4:]]
    with offline_server(package.directory) as server:
        assert prove(server, package.manifest, rows).worst <= package.manifest.rtol
        with pytest.raises(RecipeFailed, match="held-out row 3 over oip-json: training gave score"):
            prove(server, package.manifest, msgspec.structs.replace(rows, numbers=wrong))


def test_a_champion_that_answers_another_question_is_told_and_not_compared(
    lab: Lab, second: Run, extracted: Path
) -> None:
    def step(name: str) -> Job:
        job = lab.job("turned", name)
        return msgspec.structs.replace(job, settings=msgspec.structs.replace(job.settings, positive="stayed"))

    train = step("train-1")
    shutil.copytree(extracted, train.folder / "extract")
    run_step(train, "train")
    run_step(step("evaluate-1"), "evaluate")
    report = decode((train.folder / "evaluate" / "report.json").read_text())
    assert report.against is None
    assert report.paired == ()
    assert "flight-delay:1 answers another question" in report.note
    assert report.proof is not None


def test_a_dry_run_judges_and_keeps_nothing(lab: Lab, first: Run) -> None:
    def kept() -> list[object]:
        folders = (lab.project.packages, lab.project.warehouse / "extracts")
        return [lab.versions.all(), *(sorted(folder.iterdir()) for folder in folders)]

    before = kept()
    report = dry_run(lab.project, RunSpec("flight-delay", variables={"until": "2030-05-01"}), lab.log.append)
    assert report.metrics["auc"] > 0.5
    assert report.proof is None
    assert kept() == before


def test_wrong_questions_are_refused_before_any_work(lab: Lab) -> None:
    with pytest.raises(Usage, match="no variable since"):
        run_step(lab.job("no-variable", "extract-1", variables={"since": "2030"}), "extract")
    with pytest.raises(Misconfigured, match="log"):
        run_step(lab.job("no-extract", "extract-1", extract="log"), "extract")
    with pytest.raises(Misconfigured, match="no step dance"):
        run_step(lab.job("no-step", "dance-1"), "dance")
    job = msgspec.structs.replace(lab.job("stranger", "extract-1"), author="rob")
    with pytest.raises(Refused, match="role author"):
        run_step(job, "extract")
