"""A package judged on rows that it has not seen, alone and beside another one on identical rows."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from interlock.core.clock import SystemClock, from_us, iso
from interlock.core.errors import InvalidData, PredictionFailed
from interlock.core.settings import CostSettings, Settings
from interlock.evaluation.calibration import reliability, residual_quantiles
from interlock.evaluation.confusion import confusion, disagreements
from interlock.evaluation.fairness import fairness
from interlock.evaluation.held_out import HeldOut
from interlock.evaluation.importance import importance
from interlock.evaluation.metrics import baseline, measure, shaped
from interlock.evaluation.paired import compare
from interlock.evaluation.proof import offline_server, prove
from interlock.evaluation.report import FORMAT, Proof, Report, RowsUsed, Subject
from interlock.evaluation.resampling import intervals
from interlock.evaluation.shift import Shift, shifts
from interlock.evaluation.slices import by_slice
from interlock.evaluation.thresholds import thresholds
from interlock.model import golden, profile
from interlock.model.columns import Array
from interlock.model.frames import from_frame
from interlock.model.manifest import Manifest
from interlock.model.package import Package
from interlock.model.predictor import Predictor
from interlock.training.table import Table, codes_of

MAX_VALUES = 30
PROOF_ROWS = 1000
Log = Callable[[str], None]


class Candidate(msgspec.Struct, frozen=True):
    """A verified package and what it is called."""

    package: Package
    subject: Subject


class Choices(msgspec.Struct, frozen=True):
    """How to look: the deployed threshold, the columns whose values are looked at one by one (empty = chosen), what
    outcomes cost, and the column that must not decide.
    """

    threshold: float
    slices: tuple[str, ...] = ()
    cost: CostSettings | None = None
    sensitive: str = ""


def choices(settings: Settings, threshold: float) -> Choices:
    """What the project asks for, at the deployed threshold."""
    return Choices(threshold, settings.slices, settings.evaluation.cost, settings.evaluation.sensitive)


def evaluate(
    candidate: Candidate,
    rows: HeldOut,
    against: Candidate | None,
    choices: Choices,
    log: Log,
    *,
    proof: golden.Golden | Proof,
    note: str = "",
) -> Report:
    """The report on `candidate`. `proof`: raw rows and what the training process itself gave for them, to be proved equal
    through a real model server; or the proof that was made so when the version was registered.

    Raises:
        RecipeFailed: the round trip changes an answer.
        InvalidData, PredictionFailed: the rows do not fit the candidate's signature, or its model raises on them.
    """
    if isinstance(proof, Proof):
        return msgspec.structs.replace(_report(candidate, rows, against, choices, log, note), proof=proof)
    with offline_server(candidate.package.directory) as server:  # gets ready while this process works
        report = _report(candidate, rows, against, choices, log, note)
        made = prove(server, candidate.package.manifest, proof)
    log(f"proved {made.rows} rows over {', '.join(made.codecs)}: worst relative difference {made.worst:.1e}")
    return msgspec.structs.replace(report, proof=made)


def _report(
    candidate: Candidate, rows: HeldOut, against: Candidate | None, choices: Choices, log: Log, note: str
) -> Report:
    manifest = candidate.package.manifest
    signature, predictor = manifest.signature, Predictor(candidate.package)
    arrays = from_frame(signature.inputs, rows.table.frame)
    numbers = predictor.predict(arrays)
    log(f"predicted {len(numbers)} held-out rows")
    if choices.sensitive and signature.task != "binary":
        log(f"fairness over {choices.sensitive} is left out: it is measured for binary tasks")
    theirs = None
    if against is not None:
        theirs, note = _theirs(against, manifest, rows.table)
        log(note or f"predicted the same rows with {against.subject.name}")
    report = judge(candidate.subject, manifest, rows, numbers, theirs, choices)
    names, y = [spec.name for spec in signature.inputs], codes_of(signature, rows.table.labels)
    found = importance(predictor.predict, names, arrays, signature.task, y, manifest.lineage.split.seed)
    log(f"shuffled {len(names)} inputs of {found.rows} rows, {found.repeats} times")
    beside = against if theirs is not None else None
    unknown = [one.subject.name for one in (candidate, beside) if one and one.package.manifest.lineage.origin]
    caveat = f"what {' and '.join(unknown)} learnt from is unknown: leakage cannot be excluded" if unknown else ""
    report = msgspec.structs.replace(report, note=note, importance=found, caveat=caveat)
    if beside is None:
        return report
    moved: list[Shift] = []
    if manifest.lineage.origin is None:  # else nobody knows what it was trained on
        reference = profile.decode(beside.package.files[profile.FILE])
        moved = shifts(reference, signature.inputs, from_frame(signature.inputs, rows.train.frame))
    return msgspec.structs.replace(report, against=beside.subject, shifts=tuple(moved))


def judge(
    subject: Subject,
    manifest: Manifest,
    rows: HeldOut,
    numbers: NDArray[np.float64],
    theirs: NDArray[np.float64] | None,
    choices: Choices,
) -> Report:
    """The numbers of a report, without a proof, from the answers of the candidate and, if there is one, the other."""
    signature, table = manifest.signature, rows.table
    task, threshold = signature.task, choices.threshold
    y, train_y = codes_of(signature, table.labels), codes_of(signature, rows.train.labels)
    ours = shaped(task, numbers)
    other = None if theirs is None else shaped(task, theirs)
    dummy = baseline(task, train_y, len(y), len(signature.classes))
    columns = {name: _texts(table, name) for name in choices.slices or _default_slices(manifest, table)}
    seed, classes = manifest.lineage.split.seed, tuple(map(profile.text, signature.classes))
    groups = None if table.groups is None else np.unique(table.groups, return_inverse=True)[1]
    changes = [] if other is None else compare(task, y, ours, other, threshold, groups, seed)
    return Report(
        format=FORMAT,
        model=manifest.model,
        task=task,
        subject=subject,
        against=None,
        note="",
        rows=RowsUsed(
            extract_digest=manifest.lineage.extract_digest,
            split_digest=manifest.lineage.split.digest,
            n=len(y),
            left_out=rows.left_out,
            first=iso(from_us(int(table.times.min()))),
            last=iso(from_us(int(table.times.max()))),
        ),
        threshold=threshold,
        metrics=measure(task, y, ours, threshold),
        baseline=measure(task, y, dummy, threshold),
        against_metrics={} if other is None else measure(task, y, other, threshold),
        paired=tuple(changes),
        slices=tuple(by_slice(columns, task, y, ours, other, threshold, groups)),
        proof=None,
        created=iso(SystemClock().now()),
        intervals=intervals(task, y, ours, threshold, groups, seed),
        reliability=tuple(reliability(task, y, ours)),
        residuals=residual_quantiles(y, ours) if task == "regression" else {},
        thresholds=thresholds(y, ours, threshold, choices.cost, groups, seed) if task == "binary" else None,
        confusion=confusion(task, classes, y, ours, other, threshold),
        disagreements=()
        if other is None
        else tuple(disagreements(task, classes, table.ids, y, ours, other, threshold)),
        fairness=fairness(choices.sensitive, _texts(table, choices.sensitive), y, ours, threshold, groups, seed)
        if choices.sensitive and task == "binary"
        else None,
    )


def _theirs(against: Candidate, manifest: Manifest, table: Table) -> tuple[NDArray[np.float64] | None, str]:
    """The other version's answers, or None and why there are none."""
    signature = against.package.manifest.signature
    name = against.subject.name
    if (signature.task, signature.classes) != (manifest.signature.task, manifest.signature.classes):
        return None, f"{name} answers another question: {signature.task} {signature.classes}"
    try:
        return Predictor(against.package).predict(from_frame(signature.inputs, table.frame)), ""
    except (InvalidData, PredictionFailed) as error:
        return None, f"{name} cannot answer these rows: {error.message}"


def _default_slices(manifest: Manifest, table: Table) -> list[str]:
    """The first two categories with few values."""
    few = [
        spec.name
        for spec in manifest.signature.inputs
        if spec.type == "category" and table.frame[spec.name].nunique() <= MAX_VALUES
    ]
    return few[:2]


def _texts(table: Table, name: str) -> Array:
    """A column as texts, the rare values beyond the first thirty as one."""
    if name not in table.frame.columns:
        raise InvalidData(
            f"the extract has no column {name}, which interlock.toml names",
            next="compare `slices` and `sensitive` with the SQL",
        )
    column = table.frame[name]
    texts = column.astype(str).where(column.notna(), "(missing)")
    frequent = texts.value_counts().index[:MAX_VALUES]
    values: Array = texts.where(texts.isin(frequent), "(other)").to_numpy(str)
    return values
