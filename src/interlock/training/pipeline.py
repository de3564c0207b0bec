"""The training pipeline: five steps, each a child process that reads what the steps before it published.

A step writes into its attempt's folder and publishes it by one rename to `work/<run>/<step>/`. So a step that is killed has
done nothing, one that runs twice does the same again, and only `register` changes what others see.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from interlock.core.errors import InvalidData, Misconfigured
from interlock.core.project import Project
from interlock.core.settings import Settings
from interlock.jobs.port import RunSpec, StepSpec

if TYPE_CHECKING:
    import pandas as pd

    from interlock.evaluation.report import Report
    from interlock.model.manifest import Author
    from interlock.registry.versions import Version
    from interlock.training.extract import ExtractRecord
    from interlock.training.fit import Fitted
    from interlock.training.packaging import Built, Made

STEPS = (
    StepSpec("extract", timeout_seconds=3600),
    StepSpec("validate", timeout_seconds=3600),
    StepSpec("train", timeout_seconds=6 * 3600),
    StepSpec("evaluate", timeout_seconds=3600),
    StepSpec("register", timeout_seconds=600),
)
DRY_RUN_ROWS = 2000
Log = Callable[[str], None]


class Job(msgspec.Struct, frozen=True):
    """One attempt at one step of a run."""

    project: Project
    settings: Settings
    run: str
    author: str
    spec: RunSpec
    attempt: Path
    log: Log

    @property
    def folder(self) -> Path:
        """Where the run's steps publish."""
        return self.project.work / self.run

    @contextmanager
    def publishing(self, step: str) -> Iterator[Path]:
        """A folder to write into, published as the step's result at the end of the block."""
        made = self.attempt / "result"
        made.mkdir()
        yield made
        target = self.folder / step
        if target.exists():  # an attempt that died between publishing and being booked as done
            shutil.rmtree(target)
        os.rename(made, target)


def run_step(job: Job, step: str) -> None:
    """Do one step.

    Raises:
        Misconfigured: there is no such step, or the run is for another model.
        InterlockError: the step failed.
    """
    if job.spec.model != job.settings.model:
        raise Misconfigured(f"the run is for {job.spec.model}, but this project's model is {job.settings.model}")
    functions: dict[str, Callable[[Job], object]] = {
        "extract": extract,
        "validate": validate,
        "train": train,
        "evaluate": evaluate,
        "register": register,
    }
    if step not in functions:
        raise Misconfigured(f"training has no step {step} (there: {', '.join(functions)})")
    functions[step](job)


def extract(job: Job) -> None:
    """Ask the warehouse once, at a pinned snapshot; the answer is kept under its digest."""
    from interlock.training import extract as extracts
    from interlock.training.packaging import author_of

    author_of(job.project, job.author)  # before hours of work
    asked = job.project, job.settings, job.spec.extract, job.spec.variables
    try:
        record = extracts.make(*asked)
    except InvalidData:
        _validate(job, *extracts.sample(*asked, rows=None))  # names the rows, where rows are to blame
        raise
    job.log(f"extracted {record.rows} rows at snapshot {record.snapshot}: {record.digest}")
    with job.publishing("extract") as folder:
        (folder / "extract.json").write_bytes(msgspec.json.encode(record))


def validate(job: Job) -> None:
    """Hold the rows against the rules of `[validation]`; what was found is kept with the run."""
    _validate(job, *_extracted(job))


def _extracted(job: Job) -> tuple[ExtractRecord, pd.DataFrame]:
    from interlock.training import extract as extracts

    record = msgspec.json.decode((job.folder / "extract" / "extract.json").read_bytes(), type=extracts.ExtractRecord)
    return record, extracts.read(job.project, record.digest)


def _validate(job: Job, record: ExtractRecord, frame: pd.DataFrame) -> None:
    from interlock.store.database import Database
    from interlock.training import validation

    database = Database(job.project.database)
    try:
        found = validation.examine(job.settings, record, frame, validation.last_run(database, job.spec))
        for finding in found.findings:
            job.log(validation.told(finding))
        job.log(f"validated {len(frame)} rows: {len(found.failed)} of {len(found.findings)} findings fail the run")
        file = validation.keep(database, job.run, found, job.folder) if job.run else None
    finally:
        database.close()
    validation.refuse(found, file.relative_to(job.project.root) if file else None)


def train(job: Job) -> None:
    """Split, call the recipe, check what it returns, and write the package."""
    from interlock.model import package
    from interlock.training.packaging import author_of

    built, _, _ = build_on(job, *_extracted(job), author_of(job.project, job.author))
    with job.publishing("train") as folder:
        (folder / "proof.json").write_bytes(built.proof)
        (folder / "package").mkdir()
        digest = package.write(folder / "package", built.manifest, built.files)
        (folder / "digest").write_text(digest)
    job.log(f"wrote package {digest}")


def build_on(job: Job, record: ExtractRecord, frame: pd.DataFrame, author: Author) -> tuple[Built, Made, Fitted]:
    """The package of a model trained on the rows of an extract."""
    from interlock.core.hashing import digest
    from interlock.model.features import extract_source, load_source
    from interlock.training.fit import fit, signature_of
    from interlock.training.load import load_recipe, parameters_of
    from interlock.training.packaging import Made, build
    from interlock.training.split import split
    from interlock.training.table import read_table

    settings, log = job.settings, job.log
    recipe = load_recipe(job.project.root, settings.recipe, log)
    parameters = parameters_of(recipe, settings.parameters, job.spec.parameters)
    source = extract_source(recipe.mark.features, settings.requirements)
    function = load_source(source.encode(), digest(source.encode()))
    table = read_table(
        frame, id=record.id, event_time=record.event_time, label=record.label, group=settings.split.group
    )
    parts = split(settings.split, table.ids, table.times, table.groups)
    log(f"split by {settings.split.kind}: {parts.record.rows}")
    signature = signature_of(settings, recipe.mark.task, table, parts)
    fitted = fit(recipe, function, signature, table, parts, parameters, log, settings.requirements)
    made = Made(job.run, recipe, source, parameters, record, table, parts)
    return build(job.project, settings, made, fitted, author, log), made, fitted


def dry_run(project: Project, spec: RunSpec, log: Log) -> Report:
    """Validate, train and judge on a sample, in this process; nothing is kept, nothing is proved.

    Raises:
        InterlockError: as a run's steps.
    """
    from interlock.evaluation.evaluate import choices, judge
    from interlock.evaluation.held_out import HeldOut
    from interlock.evaluation.report import Subject
    from interlock.model.frames import from_frame
    from interlock.model.manifest import Author
    from interlock.training import extract as extracts

    settings = project.settings()
    job = Job(project, settings, "", "", spec, project.work, log)
    record, frame = extracts.sample(project, settings, spec.extract, spec.variables, DRY_RUN_ROWS)
    log(f"a sample of {len(frame)} of {record.rows} rows")
    _validate(job, record, frame)
    built, made, fitted = build_on(job, record, frame, Author("", ""))
    parts = {name: made.table.take(rows) for name, rows in made.split.parts.items()}
    rows = HeldOut(parts["test"], parts["train"], 0)
    numbers = fitted.predict(from_frame(fitted.signature.inputs, rows.table.frame))
    chosen = choices(settings, settings.endpoint.threshold)
    return judge(Subject(settings.model, 0, ""), built.manifest, rows, numbers, None, chosen)


def evaluate(job: Job) -> None:
    """Judge the package on held-out rows beside the champion, and prove that the model server answers the same."""
    from interlock.evaluation import evaluate as judge
    from interlock.evaluation.report import Subject, encode
    from interlock.evaluation.subjects import champion, compare_on
    from interlock.model import golden, package
    from interlock.registry.packages import PackageStore

    prepared, digest = job.folder / "train" / "package", (job.folder / "train" / "digest").read_text()
    # A run that has registered its version has moved the package into the repository.
    made = package.verify(prepared if prepared.is_dir() else PackageStore(job.project.packages).find(digest), digest)
    candidate = judge.Candidate(made, Subject(job.settings.model, 0, made.digest))
    against, threshold = champion(job.project, job.settings)
    found = compare_on(job.project, candidate, against)
    job.log(f"beside {found.against.subject.name}" if found.against else found.note)
    report = judge.evaluate(
        candidate,
        found.rows,
        found.against,
        judge.choices(job.settings, threshold),
        job.log,
        proof=golden.decode((job.folder / "train" / "proof.json").read_bytes()),
        note=found.note,
    )
    job.log(", ".join(f"{name} {value:.4f}" for name, value in report.metrics.items()))
    with job.publishing("evaluate") as folder:
        (folder / "report.json").write_bytes(encode(report))


def register(job: Job) -> Version:
    """Give the package its number: published by one rename, registered with its evaluation in one transaction."""
    from interlock.evaluation import report as reports
    from interlock.registry.packages import PackageStore
    from interlock.store.database import Database
    from interlock.training.registration import register_version

    report = reports.decode((job.folder / "evaluate" / "report.json").read_text(encoding="utf-8"))
    packages = PackageStore(job.project.packages)
    prepared = job.folder / "train" / "package"
    if prepared.is_dir():  # else an earlier attempt has published it
        packages.publish(prepared, report.subject.package_digest)
    database = Database(job.project.database)
    version = register_version(database, packages, report, job.run)
    database.close()
    job.log(f"registered {version.name} as {version.label}")
    return version
