"""A decision diff from beginning to end: two sides, the log, and the document about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

from interlock.core.clock import SystemClock, from_us, iso
from interlock.core.errors import InterlockError, NotFound, Usage
from interlock.core.project import Project
from interlock.core.trust import TrustRoot
from interlock.evaluation.diff import FORMAT, Diff, Mismatch, Reason, Unsupported
from interlock.evaluation.evaluate import MAX_VALUES
from interlock.evaluation.logged import RequestLog, Span
from interlock.evaluation.metrics import Array, Floats
from interlock.evaluation.replay import Answered, Replay
from interlock.evaluation.sides import Setup
from interlock.evaluation.tally import Compared, Decisions, Tally
from interlock.model.package import read_manifest
from interlock.model.signature import Label, Signature
from interlock.registry.packages import PackageStore
from interlock.registry.routes import RouteDocument, RouteStore
from interlock.warehouse.port import Warehouse

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN = 5


class Question(Struct, frozen=True):
    """What to look at. `slices` empty: the project's, else the first two categories with few values; `tolerance` None: the
    manifest's.
    """

    span: Span = Span()
    slices: tuple[str, ...] = ()
    value: str = ""
    tolerance: float | None = None


def diff(
    project: Project,
    warehouse: Warehouse,
    route: RouteDocument,
    trust: TrustRoot,
    sides: tuple[Setup, Setup],
    question: Question,
    say: Callable[[int, int], None],
) -> Diff:
    """Replay the logged requests of the route's endpoint through both sides. `say`: rows done, rows in all.

    Raises:
        Usage: the sides answer different questions, or a column is not there.
        NotFound: no request lies in the range. Unavailable: a model server went away.
    """
    before, after = sides
    signature = before.signature
    if (signature.task, signature.classes) != (after.signature.task, after.signature.classes):
        names = " and ".join(one.candidate.subject.name for one in sides)
        raise Usage(f"{names} answer different questions: nothing can be compared")
    slices, notes = _slices(project, after.signature, question)
    log = RequestLog(warehouse, route.endpoint, question.span, [one.signature for one in sides], slices, question.value)
    logged = _signatures(PackageStore(project.packages), log)
    replay = Replay(list(sides), log, logged)
    rtol = before.candidate.package.manifest.rtol
    tolerance = rtol if question.tolerance is None else question.tolerance
    tally = Tally(replay.decisions, tolerance, log.slices, question.value)
    exact = _under(before, log, RouteStore(project.routes), route.endpoint, trust)
    check = Check(signature, rtol, replay.decisions, exact)
    reasons: Counter[int] = Counter()
    rows = sum(kind["rows"] for kind in log.kinds)
    for page in replay.pages():
        numbers, counts = np.unique(page.reasons[page.reasons > 0], return_counts=True)
        reasons.update(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
        check.add(page)
        tally.add(compared(page, signature, len(log.slices)))
        say(tally.rows + reasons.total(), rows)
    told = tuple(Reason(replay.reasons[number], count) for number, count in reasons.most_common())
    return Diff(
        format=FORMAT,
        endpoint=route.endpoint,
        task=signature.task,
        before=before.said(),
        after=after.said(),
        revision=route.revision,
        snapshot=log.snapshot,
        since=question.span.since,
        until=question.span.until,
        last=question.span.last,
        first_event=iso(from_us(min(kind["first"] for kind in log.kinds))),
        last_event=iso(from_us(max(kind["last"] for kind in log.kinds))),
        requests=sum(kind["requests"] for kind in log.kinds),
        rows=rows,
        unsupported=Unsupported(reasons.total(), reasons.total() / rows, told),
        changes=tally.result(),
        mismatch=Mismatch(check.compared, check.differing, tuple(check.examples)),
        speed=replay.speeds,
        tolerance=tolerance,
        notes=tuple(notes),
        created=iso(SystemClock().now()),
    )


def _slices(project: Project, signature: Signature, question: Question) -> tuple[list[str], list[str]]:
    """The columns to look at, and notes about those that the log cannot have."""
    if question.slices:
        return list(question.slices), []
    named, inputs = project.settings().slices, [spec.name for spec in signature.inputs]
    few = [spec.name for spec in signature.inputs if spec.type == "category" and 0 < len(spec.categories) <= MAX_VALUES]
    notes = [f"slice {name} is no raw input, so the log cannot tell it" for name in named if name not in inputs]
    return [name for name in named if name in inputs] if named else few[:2], notes


def _signatures(packages: PackageStore, log: RequestLog) -> dict[str, Signature]:
    found = {}
    for package in {kind["package_digest"] for kind in log.kinds if kind["package_digest"]}:
        try:
            found[package] = read_manifest(packages.find(package), package).signature
        except NotFound:  # then only its rows tell what was logged
            continue
    return found


def _under(side: Setup, log: RequestLog, routes: RouteStore, endpoint: str, trust: TrustRoot) -> Array:
    """Of each kind of rows, whether this side answered them: package, parameters and rules."""
    same: dict[int, bool] = {0: False}
    for revision in {kind["route_revision"] for kind in log.kinds if kind["package_digest"] == side.package}:
        try:
            route = routes.read(endpoint, trust, revision, past=True)
        except InterlockError:  # a document that is gone or altered proves nothing
            continue
        if route.override is not None:  # its rows are from before its end or after
            continue
        then = Setup(side.candidate, route.parameters, route.rules, {})
        same[revision] = then.obeyed() == side.obeyed() and route.rules == side.rules
    return np.array(
        [kind["package_digest"] == side.package and same.get(kind["route_revision"], False) for kind in log.kinds]
    )


class Check:
    """Whether the replay gives what the log says, where side A answered it."""

    def __init__(self, signature: Signature, rtol: float, decisions: Decisions, kinds: Array) -> None:
        """`kinds`: of each kind of rows, whether they were side A's."""
        self.compared = self.differing = 0
        self.examples: list[str] = []
        self._signature, self._rtol, self._decisions, self._kinds = signature, rtol, decisions, kinds

    def add(self, page: Answered) -> None:
        """Compare the decisions exactly, the numbers within the manifest's tolerance."""
        import pyarrow.compute as pc

        outcome, reason = (page.table.column(name).to_numpy() for name in ("outcome", "reason"))
        rule = (outcome == "fallback") & (reason == "rule")
        rows = self._kinds[page.kinds] & (page.reasons == 0) & (rule | np.isin(outcome, ("answered", "refused")))
        if not rows.any():
            return
        table, codes, numbers = page.table.filter(rows), page.codes[0][rows], page.numbers[0][rows]
        answered, differs = outcome[rows] == "answered", np.zeros(len(codes), bool)
        expected = np.where(outcome[rows] == "refused", self._decisions.code("refused"), np.nan)
        if "out_label" in table.column_names:
            said = _positions(self._signature.classes, table.column("out_label"))
            expected = np.where(np.isnan(expected), said + np.where(answered, 0, self._decisions.labels), expected)
            differs = codes != expected
        name = next((one for one in ("out_score", "out_value", "out_probabilities") if one in table.column_names), None)
        if name is not None and answered.any():
            told = table.column(name).filter(answered)
            told = pc.list_flatten(told) if name == "out_probabilities" else told
            theirs = told.to_numpy().reshape(-1, self._signature.width)
            off = np.abs(theirs - numbers[answered]) > self._rtol * np.abs(theirs)
            differs[answered] |= off.any(axis=1) | (codes[answered] >= self._decisions.labels)
        self.compared += len(codes)
        self.differing += int(differs.sum())
        self.examples += table.column("id").filter(differs).slice(0, SHOWN - len(self.examples)).to_pylist()


def compared(page: Answered, signature: Signature, slices: int) -> Compared:
    """The rows that both sides decided."""
    keep = page.reasons == 0
    table = page.table if keep.all() else page.table.filter(keep)
    before, after = (codes[keep] for codes in page.codes)
    first, second = (numbers[keep] for numbers in page.numbers)
    if signature.task == "multiclass":  # of the label that A gives, where both asked a model
        both = np.flatnonzero((before < signature.width) & (after < signature.width))
        scores = np.full((2, len(before)), np.nan)
        scores[:, both] = first[both, before[both]], second[both, before[both]]
    else:
        scores = np.array([first[:, 0], second[:, 0]])
    text = bool(signature.classes) and isinstance(signature.classes[0], str)
    label = table.column("label_text" if text else "label_num")
    known = _positions(signature.classes, label) if signature.classes else _numbers(label)
    codes = [table.column(f"slice_{i}").to_numpy() for i in range(slices)]
    worth = _numbers(table.column("worth"))
    return Compared(
        before, after, scores[0], scores[1], known, worth, codes, table.column("id"), table.column("row").to_numpy()
    )


def _numbers(column: pa.ChunkedArray) -> Floats:
    """Float64, NaN for null."""
    return np.asarray(column.to_numpy(), np.float64)


def _positions(classes: tuple[Label, ...], column: pa.ChunkedArray) -> Floats:
    """Positions of labels among the classes, NaN for none of them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(classes[0], str):
        return _numbers(pc.index_in(column.cast(pa.string()), value_set=pa.array(classes)))
    numbers = _numbers(column.cast(pa.uint8()) if pa.types.is_boolean(column.type) else column)
    values = np.array(classes, np.float64)
    order = np.argsort(values)
    at = order[np.minimum(np.searchsorted(values, numbers, sorter=order), len(values) - 1)]
    return np.where(values[at] == numbers, at, np.nan)
