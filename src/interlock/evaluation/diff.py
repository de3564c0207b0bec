"""What a decision diff says: which logged requests would be decided otherwise. The struct whose digest an approver signs.

A *decision* is what the client gets: an outcome and, where there is an answer, its label.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct

from interlock.core.errors import Corrupt
from interlock.core.hashing import canonical
from interlock.core.settings import Task
from interlock.evaluation.report import Subject
from interlock.registry.routes import Rule

FORMAT = 1


class Side(Struct, frozen=True):
    """What decides: a version under parameters (those that a replay obeys) and rules, whose digest leaves out their reasons.

    `left_out`: names of rules that do not fit the version.
    """

    subject: Subject
    parameters: dict[str, Any]
    rules: tuple[Rule, ...]
    rules_digest: str
    left_out: tuple[str, ...]


class Reason(Struct, frozen=True):
    """Why rows could not be replayed."""

    reason: str
    rows: int


class Unsupported(Struct, frozen=True):
    """Rows of the range that could not be replayed, their share of all rows, and why."""

    rows: int
    share: float
    reasons: tuple[Reason, ...]


class Mismatch(Struct, frozen=True):
    """The check of the replay itself: of `compared` rows, logged under side A exactly, how many it answered otherwise."""

    compared: int
    differing: int
    examples: tuple[str, ...]
    """Prediction ids."""


class Speed(Struct, frozen=True):
    """How a package was asked. `seconds`: from its first to its last answer; `model_us`: microseconds a row in the model."""

    package_digest: str
    rows: int
    seconds: float
    rows_per_second: float
    model_us: float
    failed: int
    """Rows for which the model raised."""


class Transition(Struct, frozen=True):
    """Rows that go from one decision to another (or stay). Of those whose label is known: how many were and would be right."""

    before: str
    after: str
    changed: bool
    rows: int
    labelled: int
    right_before: int
    right_after: int


class Changed(Struct, frozen=True):
    """Rows whose decision changes and their share, with its 95 % interval (Wilson 1927), each row counted by itself."""

    rows: int
    share: float
    low: float
    high: float


class Slice(Struct, frozen=True):
    """One value of one column. P values are adjusted over all slices of one test (Benjamini & Hochberg 1995); None = not tested.

    `p`: whether more or less of it changes than of the rest (Fisher, exact); `p_net`: whether more rows are harmed than
    helped, or less (McNemar, exact). verdict: "too small" under 100 rows, else the first of these that is so.
    """

    column: str
    value: str
    n: int
    changed: int
    share: float
    low: float
    high: float
    helped: int
    harmed: int
    p: float | None
    p_net: float | None
    verdict: Literal["too small", "harmed", "helped", "more", "less", "alike"]


class Labels(Struct, frozen=True):
    """Changed rows by what became known: helped + harmed + unknown = changed.

    helped: only the new decision is right (regression: nearer); harmed: only the old one; unknown: no label is known, or it
    says neither (one of the two has no label, or both are wrong). `labelled`: rows with a known label, changed or not.
    """

    labelled: int
    helped: int
    harmed: int
    unknown: int
    net: int
    p: float
    """Exact McNemar, two-sided, helped against harmed."""


class Value(Struct, frozen=True):
    """Sums of a column over changed rows. `known`: changed rows that have a value."""

    column: str
    known: int
    changed: float
    helped: float
    harmed: float


class Shift(Struct, frozen=True):
    """How the score moves where both sides asked their model: P(positive), the value, or P(the label that A gives).

    Quantiles are right to 1 % of themselves; `counts`: rows in equal bins from `low` to `high`, the ends take what lies beyond.
    """

    rows: int
    mean: float
    quantiles: dict[str, float]
    low: float
    high: float
    counts: tuple[int, ...]


class Example(Struct, frozen=True):
    """A row whose decision changes; `interlock explain` opens it."""

    prediction_id: str
    row: int
    before: str
    after: str
    score_before: float | None
    score_after: float | None
    label: str | float | None


class Changes(Struct, frozen=True, kw_only=True):
    """All numbers about the rows that were replayed."""

    requests: int
    rows: int
    changed: Changed
    transitions: tuple[Transition, ...]
    slices: tuple[Slice, ...]
    labels: Labels
    value: Value | None
    shift: Shift | None
    examples: tuple[Example, ...]


class Diff(Struct, frozen=True, kw_only=True):
    """The document. Its canonical bytes are its identity: their digest is what an approver signs.

    `since`, `until`, `last`: the range as it was asked for; `first_event`, `last_event`: event times that it holds. `revision`:
    the route's, whose parameters and rules hold where nothing else was said. `tolerance`: relative, for regression.
    """

    format: int
    endpoint: str
    task: Task
    before: Side
    after: Side
    revision: int
    snapshot: int
    since: str | None
    until: str | None
    last: int | None
    first_event: str
    last_event: str
    requests: int
    rows: int
    unsupported: Unsupported
    changes: Changes
    mismatch: Mismatch
    speed: tuple[Speed, ...]
    tolerance: float
    notes: tuple[str, ...]
    created: str


def encode(diff: Diff) -> bytes:
    """The canonical bytes that are stored and whose digest is signed."""
    return canonical(diff)


def decode(document: str) -> Diff:
    """Read a stored document.

    Raises:
        Corrupt: it has another format.
    """
    found = msgspec.json.decode(document)
    if found.get("format") != FORMAT:
        raise Corrupt(f"a diff of format {found.get('format')}; this version reads format {FORMAT}")
    return msgspec.convert(found, Diff)
