"""What an evaluation says: the struct whose canonical digest a reviewer signs."""

from __future__ import annotations

import msgspec

from interlock.core.errors import Corrupt
from interlock.core.hashing import canonical
from interlock.core.settings import Task
from interlock.evaluation.calibration import Bin
from interlock.evaluation.confusion import Confusion, Disagreement
from interlock.evaluation.fairness import Fairness
from interlock.evaluation.importance import Importance
from interlock.evaluation.paired import Paired
from interlock.evaluation.resampling import Interval
from interlock.evaluation.shift import Shift
from interlock.evaluation.slices import Slice
from interlock.evaluation.thresholds import Thresholds

FORMAT = 2
"""2 added all that has a default below; reports of format 1 are read, and lack it."""


class Subject(msgspec.Struct, frozen=True):
    """An evaluated package; `version` is 0 while it is not registered."""

    model: str
    version: int
    package_digest: str

    @property
    def name(self) -> str:
        """`flight-delay:7`, or the model alone."""
        return f"{self.model}:{self.version}" if self.version else self.model


class RowsUsed(msgspec.Struct, frozen=True):
    """Which rows: those held out of `extract_digest` by `split_digest`, in [`first`, `last`] by event time.

    `left_out`: held-out rows that the other version was trained on, and that therefore nobody was judged by.
    """

    extract_digest: str
    split_digest: str
    n: int
    left_out: int
    first: str
    last: str


class Proof(msgspec.Struct, frozen=True):
    """The round trip of raw rows through every wire codec and a real model server: labels equal, numbers within `rtol`.

    `worst` is the largest relative difference that was seen, `start_seconds` the time from the start of that server to
    its being ready; None in proofs made before it was measured.
    """

    passed: bool
    rows: int
    codecs: tuple[str, ...]
    rtol: float
    worst: float
    start_seconds: float | None = None


class Report(msgspec.Struct, frozen=True):
    """Numbers of a version on rows that it has not seen, alone and beside another version on identical rows.

    `metrics`: the version's; `baseline`: those of a model that knows only the training labels; `against_metrics`: the
    other version's. `threshold` is the deployed one. `note` says why there is nothing to compare with, `caveat` why the
    numbers may flatter a version.
    """

    format: int
    model: str
    task: Task
    subject: Subject
    against: Subject | None
    note: str
    rows: RowsUsed
    threshold: float
    metrics: dict[str, float]
    baseline: dict[str, float]
    against_metrics: dict[str, float]
    paired: tuple[Paired, ...]
    slices: tuple[Slice, ...]
    proof: Proof | None
    created: str
    caveat: str = ""
    intervals: dict[str, Interval] = {}
    """Of `metrics`, by name."""
    reliability: tuple[Bin, ...] = ()
    residuals: dict[str, float] = {}
    """Regression: quantiles of answer - truth."""
    thresholds: Thresholds | None = None
    confusion: Confusion | None = None
    disagreements: tuple[Disagreement, ...] = ()
    importance: Importance | None = None
    fairness: Fairness | None = None
    shifts: tuple[Shift, ...] = ()
    """Training rows against the other version's."""


def encode(report: Report) -> bytes:
    """The canonical bytes that are stored and whose digest is signed."""
    return canonical(report)


def decode(text: str) -> Report:
    """Read a stored report.

    Raises:
        Corrupt: it has another format.
    """
    kind = msgspec.json.decode(text, type=_Format)
    if not 1 <= kind.format <= FORMAT:
        raise Corrupt(f"an evaluation of format {kind.format}; this version reads formats 1 to {FORMAT}")
    return msgspec.json.decode(text, type=Report)


class _Format(msgspec.Struct):
    format: int
