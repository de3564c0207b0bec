"""A model that was trained elsewhere, taken in: a directory of `interlock.save`, or a model of an MLflow server.

Everything it brings is checked before anything of it is loaded. Then it goes the way of a trained one: split, signature,
package, round-trip proof, evaluation beside the champion, registration.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from interlock.core.errors import InvalidData, NotFound, RecipeFailed, Refused, Tampered
from interlock.core.hashing import digest, parse_canonical
from interlock.core.ids import uuid7_text
from interlock.core.project import Project
from interlock.core.settings import InputSettings, Settings, Task
from interlock.jobs.port import RunSpec
from interlock.model import features, golden, oip
from interlock.model.columns import Array, pack, unpack
from interlock.model.frames import from_frame, to_frame
from interlock.model.manifest import Author, Origin, RuntimeName
from interlock.model.package import read_file, read_listed, write
from interlock.model.runtimes import RUNTIMES, lightgbm, onnx, sklearn, xgboost
from interlock.model.runtimes.interface import classes_of, library
from interlock.model.signature import Input, Label, Signature
from interlock.registry.mlflow import MlflowModel
from interlock.registry.versions import Version
from interlock.training import extract as extracts
from interlock.training import pipeline
from interlock.training.fit import Fitted, check_probes, checked, signature_of
from interlock.training.load import Log, user_code
from interlock.training.packaging import Built, Made, author_of, build
from interlock.training.pickles import is_pickle
from interlock.training.saving import FORMAT, INDEX, Saved
from interlock.training.split import split
from interlock.training.table import Table, read_table

if TYPE_CHECKING:
    import pandas as pd

MAX_BYTES = 1 << 30
MAX_INDEX = 1 << 20
"""Of `saved.json` and of MLflow's `MLmodel`."""
FLAVOURS: dict[str, tuple[RuntimeName, str, str]] = {
    "sklearn": ("sklearn", "pickled_model", sklearn.FILE),
    "xgboost": ("xgboost", "data", xgboost.FILE),
    "lightgbm": ("lightgbm", "data", lightgbm.FILE),
    "onnx": ("onnx", "data", onnx.FILE),
}
"""MLflow's flavour → runtime, the key of `MLmodel` that names the model file, and what the package calls it."""


class Sample(msgspec.Struct, frozen=True):
    """Rows and the answers of the model itself, where it was trained. `classes` as it had them; empty: none known."""

    inputs: tuple[Input, ...]
    classes: tuple[Label, ...]
    rows: golden.Golden


class Foreign(msgspec.Struct, frozen=True):
    """A model that nothing has been loaded of yet. `task`, `sample`: None, `columns`: empty = unknown."""

    origin: Origin
    runtime: RuntimeName
    files: dict[str, bytes]
    """The model's own."""
    source: bytes = features.IDENTITY.encode()
    task: Task | None = None
    columns: tuple[str, ...] = ()
    sample: Sample | None = None


def read_saved(path: Path, given: str, model: str) -> Foreign:
    """A directory that `interlock.save` made for that model.

    Raises:
        NotFound: there is nothing.
        Refused: it is no such directory, holds a pickle, is too large, for another model, or was altered.
    """
    if not path.exists():
        raise NotFound(f"there is no {given}")
    if path.is_symlink():
        raise Refused(f"{given} is a link", next="name the directory itself")
    plain = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file() and not one.is_symlink()]
    if sum(one.stat().st_size for one in plain) > MAX_BYTES:
        raise Refused(f"{given} is larger than {MAX_BYTES >> 20} MiB", next="save a smaller model")
    for one in plain:
        refuse_pickle(one.name, one.read_bytes(), model)
    if not (path / INDEX).is_file():
        raise Refused(f"{given} is no directory made by interlock.save", next=_line(model))
    content = read_file(path, INDEX)
    data = parse_canonical(content, INDEX) if len(content) <= MAX_INDEX else None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise Tampered(f"{INDEX} has an unknown format; this version reads format {FORMAT}", next=_line(model))
    try:
        saved = msgspec.convert(data, Saved)
        files = read_listed(path, saved.files, INDEX)
        rows = golden.decode(files[golden.FILE])
        source = files[features.FILE]
    except (msgspec.DecodeError, KeyError) as error:
        raise Tampered(f"{given} is not what interlock.save writes: {error}", next=_line(model)) from error
    if saved.name != model:
        raise Refused(f"{given} was saved as {saved.name}, but this project's model is {model}", next=_line(model))
    return Foreign(
        Origin(given, digest(content)),
        saved.runtime,
        {name: one for name, one in files.items() if name.startswith("model/")},
        source,
        saved.task,
        saved.columns,
        Sample(saved.inputs, saved.classes, rows),
    )


def read_mlflow(found: MlflowModel, given: str, model: str) -> Foreign:
    """A model of an MLflow server, in a flavour whose file is no pickle.

    Raises:
        Refused: it is a pickle, of another flavour, or too large.
        Unavailable: the server does not answer.
    """
    yaml = library("yaml", "mlflow")
    try:
        index = yaml.safe_load(found.read("MLmodel", MAX_INDEX))
        flavour = next((name for name in FLAVOURS if name in index["flavors"]), "")
        if not flavour:
            there, here = (", ".join(names) for names in (index["flavors"], FLAVOURS))
            raise Refused(f"{given} is of the flavour {there}; taken are {here}", next=_line(model))
        runtime, key, name = FLAVOURS[flavour]
        path = str(index["flavors"][flavour][key])
        told = msgspec.json.decode((index.get("signature") or {}).get("inputs") or "[]")
        columns = tuple(str(one["name"]) for one in told if "name" in one)
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, msgspec.DecodeError) as error:
        raise Refused(f"{given} has an MLmodel that cannot be read: {error!r}", next=_line(model)) from error
    data = found.read(path, MAX_BYTES)
    instead = {
        "sklearn": f'mlflow.sklearn.log_model(model, name="{model}", serialization_format="skops")',
        "lightgbm": f'mlflow.lightgbm.log_model(model.booster_, name="{model}")',
    }.get(flavour, "")
    refuse_pickle(f"{path} of {given}", data, model, instead)
    if flavour == "lightgbm" and data.startswith(b"PK"):
        raise Refused(f"{given} holds LightGBM's wrapper, not the booster in it", next=instead)
    origin = Origin(given, digest(data), found.server, found.name, found.version)
    return Foreign(origin, runtime, {name: data}, columns=columns)


def refuse_pickle(name: str, data: bytes, model: str, instead: str = "") -> None:
    """Raise Refused if the bytes are a pickle, with the line to run where the model was trained."""
    if is_pickle(data):
        raise Refused(
            f"{name} is a pickle or joblib file: opening it would run whatever code it holds, so nobody does",
            next=f"{instead}, or {_line(model)}" if instead else _line(model),
        )


def _line(model: str) -> str:
    return f'where it was trained: import interlock; interlock.save(model, "{model}", sample=X.head(100))'


def register(project: Project, foreign: Foreign, author: str, log: Log) -> Version:
    """Package, prove, judge and register it, in this process.

    Raises:
        InterlockError: as the steps of a run.
    """
    settings, run = project.settings(), uuid7_text()

    def job(step: str) -> pipeline.Job:
        attempt = project.work / run / "attempts" / step
        attempt.mkdir(parents=True)
        return pipeline.Job(project, settings, run, author, RunSpec(settings.model), attempt, log)

    try:
        pipeline.extract(job("extract"))
        _package(job("train"), foreign)
        pipeline.evaluate(job("evaluate"))
        return pipeline.register(job("register"))
    finally:
        shutil.rmtree(project.work / run, ignore_errors=True)


def _package(job: pipeline.Job, foreign: Foreign) -> None:
    record = msgspec.json.decode((job.folder / "extract" / "extract.json").read_bytes(), type=extracts.ExtractRecord)
    frame = extracts.read(job.project, record.digest)
    built = build_on(job, record, frame, foreign, author_of(job.project, job.author))
    with job.publishing("train") as folder:
        (folder / "proof.json").write_bytes(built.proof)
        (folder / "package").mkdir()
        found = write(folder / "package", built.manifest, built.files)
        (folder / "digest").write_text(found)
    job.log(f"wrote package {found}")


def build_on(
    job: pipeline.Job, record: extracts.ExtractRecord, frame: pd.DataFrame, foreign: Foreign, author: Author
) -> Built:
    """The package of the model, with the rows of an extract to judge it by.

    Raises:
        Refused: its inputs or classes are not the project's, or it answers its own sample otherwise here.
        Tampered: its file is not safe to load.
        RecipeFailed: it cannot be served.
    """
    settings = _with_inputs(job.settings, foreign)
    table = read_table(
        frame, id=record.id, event_time=record.event_time, label=record.label, group=settings.split.group
    )
    parts = split(settings.split, table.ids, table.times, table.groups)
    model = RUNTIMES[foreign.runtime].load(foreign.files)
    signature = signature_of(settings, foreign.task or _task(model, record.label, table), table, parts)
    asked = _asked(foreign.sample, signature) if foreign.sample else []
    source, columns = _features(model, foreign, [one.name for one in signature.inputs])
    function = features.load_source(source, digest(source))
    row = from_frame(signature.inputs, table.frame.head(1))
    with user_code("the feature function", job.log):
        made = list(map(str, function(to_frame(signature.inputs, row)).columns))
    if made != columns:
        raise RecipeFailed(f"the feature function makes the columns {made} here, where it was saved {columns}")
    order = _order(foreign.sample.classes if foreign.sample else (), signature.classes)
    fitted = checked(model, function, signature, columns, row, settings.requirements, order)
    if foreign.sample:
        _check_answers(fitted, asked, foreign.sample.rows.numbers)
        job.log(f"answers {len(asked[0])} sample rows as where it was trained")
    check_probes(fitted, row, job.log)
    origin = foreign.origin
    return build(
        job.project, settings, Made(job.run, origin, source.decode(), {}, record, table, parts), fitted, author, job.log
    )


def _with_inputs(settings: Settings, foreign: Foreign) -> Settings:
    """The settings of the project, whose `[inputs]` rule; where it names none, with the sample's columns."""
    found = {one.name: InputSettings(one.type, one.nullable) for one in foreign.sample.inputs} if foreign.sample else {}
    if not settings.inputs and not found:
        raise Refused("the project names no [inputs]", next="name the model's raw inputs in interlock.toml")
    differing = sorted(set(found) ^ set(settings.inputs)) if found and settings.inputs else []
    if differing:
        raise Refused(
            f"the model's raw inputs are not the project's: {', '.join(differing)} is only in "
            + ("the sample" if differing[0] in found else "[inputs]"),
            next="save it with a sample of the project's raw columns (label=NAME leaves the label out), or mend [inputs]",
        )
    return settings if settings.inputs else msgspec.structs.replace(settings, inputs=found)


def _task(model: Any, label: str, table: Table) -> Task:
    """What a model of MLflow answers: scikit-learn's tell, for the others the label does."""
    import pyarrow as pa

    from interlock.training.guess import task_of

    if hasattr(model, "fit") and not classes_of(model):
        return "regression"
    return task_of(label, pa.chunked_array([pa.Array.from_pandas(table.labels)]))


def _features(model: Any, foreign: Foreign, names: list[str]) -> tuple[bytes, list[str]]:
    """Source of the feature function, and the model's columns; without one it picks them from the raw inputs."""
    spaced = {name.replace(" ", "_"): name for name in names}  # LightGBM has no spaces in its names
    own = foreign.columns or RUNTIMES[foreign.runtime].dump(model).columns
    if not own:
        raise Refused("the model does not name its columns", next="log it with a signature: input_example=X.head(3)")
    if foreign.source != features.IDENTITY.encode():
        return foreign.source, list(own)
    columns = [name if name in names else spaced.get(name, name) for name in own]
    absent = [name for name in columns if name not in names]
    if absent:
        raise Refused(
            f"the model takes the column {absent[0]}, which [inputs] does not name (there: {', '.join(names)})",
            next="name it in [inputs], or make it of raw ones: interlock.save(…, features=FUNCTION)",
        )
    if columns == names:
        return foreign.source, columns
    return (
        f"def chosen_columns(raw):\n    return raw[{columns!r}]\n\n\n{features.ENTRY} = chosen_columns\n".encode(),
        columns,
    )


def _order(known: tuple[Label, ...], classes: tuple[Label, ...]) -> tuple[Label, ...]:
    """The labels in the order of the model's probabilities; one that only numbers them means the signature's order."""
    if set(known) == set(classes):
        return known
    if known and known != tuple(range(len(classes))):
        raise Refused(f"the model knows the classes {list(known)}, but the label's are {list(classes)}")
    return classes


def _asked(sample: Sample, signature: Signature) -> list[Array]:
    """The sample's raw rows, read by the project's types."""
    theirs = msgspec.structs.replace(signature, inputs=sample.inputs, layout="columns")
    _, lists = oip.read_columns(theirs, oip.InferRequest(sample.rows.inputs))
    frame = to_frame(sample.inputs, unpack(theirs, pack(theirs, lists)))
    try:
        return from_frame(signature.inputs, frame)
    except InvalidData as error:
        raise Refused(f"the sample does not fit [inputs]: {error.message}", next=error.next) from error


def _check_answers(fitted: Fitted, asked: list[Array], answers: list[float]) -> None:
    """Whether it gives the answers that it gave where it was trained."""
    signature = msgspec.structs.replace(fitted.signature, classes=fitted.engine.classes)  # theirs were in this order
    found = msgspec.structs.replace(fitted.engine, signature=signature).predict(fitted.function, asked)
    if len(answers) != found.size:
        raise Tampered(f"the sample has {len(answers)} answers where {found.size} belong")
    told = np.array(answers).reshape(found.shape)
    equal = np.isclose(found, told, rtol=RUNTIMES[fitted.runtime].RTOL, atol=0.0).all(axis=1)
    if not equal.all():
        at = int(np.argmin(equal))
        raise Refused(
            f"sample row {at}: where it was trained the model answered {told[at].tolist()}, here {found[at].tolist()}",
            next="install the versions of its requirements.txt, or compare [inputs] with the types of the sample",
        )
