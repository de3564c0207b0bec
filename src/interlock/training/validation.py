"""Data validation: what is wrong with the rows of an extract before anything is trained on them, and in which rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec
import numpy as np
from sqlalchemy import select, update

from interlock.core.errors import InvalidData, Misconfigured
from interlock.core.files import write_atomic
from interlock.core.settings import InputSettings, Settings
from interlock.jobs.port import RunSpec
from interlock.model.columns import Array
from interlock.model.frames import from_frame
from interlock.model.signature import Input
from interlock.store.database import Database
from interlock.store.tables import runs
from interlock.training.extract import ExtractRecord
from interlock.training.leakage import names_rows, tells_label
from interlock.training.split import split
from interlock.training.table import read_table

if TYPE_CHECKING:
    import pandas as pd

Rule = Literal["null", "unique", "type", "range", "volume", "id_copy", "label_copy", "time_overlap", "group_overlap"]
RULES: tuple[Rule, ...] = get_args(Rule)
SHOWN = 10
KEPT = 1000
"""Offending rows of a finding that are told, and that are written to the file."""
FILE = "validation.json"


class Last(msgspec.Struct, frozen=True):
    """The last run that succeeded on the same extract."""

    run_id: str
    rows: int


class Finding(msgspec.Struct, frozen=True):
    """What a rule found. `count`: offending rows, all of them where the whole column offends; `rows`: the first of them,
    each with its id and the columns concerned."""

    rule: Rule
    column: str
    verdict: Literal["failed", "accepted"]
    count: int
    text: str
    next: str
    rows: list[dict[str, Any]]


class Validation(msgspec.Struct, frozen=True):
    """What was looked at, and what was found."""

    rows: int
    last: Last | None
    rules: tuple[Rule, ...]
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> list[Finding]:
        """The findings that fail a run."""
        return [one for one in self.findings if one.verdict == "failed"]

    def first(self, rows: int) -> Validation:
        """The same with at most so many offending rows a finding."""
        cut = tuple(msgspec.structs.replace(one, rows=one.rows[:rows]) for one in self.findings)
        return msgspec.structs.replace(self, findings=cut)


def examine(settings: Settings, record: ExtractRecord, frame: pd.DataFrame, last: Last | None) -> Validation:
    """Hold the rows of an extract against every rule; `record.rows` is their number where `frame` is a sample.

    Raises:
        Misconfigured: a rule of `interlock.toml` means nothing.
        InvalidData: a column is missing.
    """
    asked, rules = settings.validation, list(RULES)
    for word in asked.accept:
        if word.partition(":")[0] not in RULES:
            raise Misconfigured(f"[validation] accept: there is no rule {word!r}", next=f"rules: {', '.join(RULES)}")
    needed = (record.id, record.event_time, record.label, *filter(None, [settings.split.group]), *settings.inputs)
    if missing := [name for name in needed if name not in frame.columns]:
        raise InvalidData(
            f"the extract has no column {', '.join(missing)}", next="compare interlock.toml with the extract's SQL"
        )
    search = _Search(settings, record, frame)
    findings = [*search.rows(), *search.volume(last), *search.copies()]
    for name in ("time_overlap", "group_overlap"):
        if not getattr(asked, name):
            rules.remove(name)
    if not any(one.rule in ("null", "unique", "type") for one in findings):  # else there is nothing to split
        findings += search.overlaps()
    return Validation(record.rows, last, tuple(rules), tuple(findings))


class _Search:
    """The rules over one extract."""

    def __init__(self, settings: Settings, record: ExtractRecord, frame: pd.DataFrame) -> None:
        self.settings, self.record, self.frame = settings, record, frame

    def rows(self) -> Iterator[Finding]:
        """Rows that are wrong by themselves."""
        frame, id = self.frame, self.record.id
        for name in dict.fromkeys((id, self.record.event_time, self.record.label)):
            yield from self._nulls(name, f"leave them out: WHERE {name} IS NOT NULL")
        twice = np.flatnonzero(frame[id].duplicated(keep=False) & frame[id].notna())
        if len(twice):
            text = f"id {id} is not unique: {len(twice)} of {len(frame)} rows share theirs"
            yield self._finding("unique", id, text, "make it of more columns in the SQL", rows=twice)
        for name in self.settings.inputs:
            yield from self._input(name, self.settings.input(name))

    def _input(self, name: str, spec: InputSettings) -> Iterator[Finding]:
        series, n = self.frame[name], len(self.frame)
        if not spec.nullable:
            yield from self._nulls(name, f"allow it in [inputs]: nullable = true; or WHERE {name} IS NOT NULL")
        known = np.flatnonzero(series.notna())
        wire = Input(name, spec.type, zone=spec.zone)
        misfits, why = _misfits(wire, self.frame.iloc[known])
        if len(misfits):
            more = " or more" if len(misfits) == KEPT else ""
            text = f"{len(misfits)}{more} of {n} rows are no {spec.type}: {why}"
            yield self._finding("type", name, text, "cast it in the SQL, or mend the source", rows=known[misfits])
            return
        if spec.type not in ("int", "float") and (spec.min is not None or spec.max is not None):
            raise Misconfigured(f"[inputs] {name} is a {spec.type}: min and max are for int and float")
        (values,) = from_frame((wire,), self.frame.iloc[known])
        outside, within = np.zeros(len(values), bool), ""
        if spec.min is not None or spec.max is not None:
            low, high = -np.inf if spec.min is None else spec.min, np.inf if spec.max is None else spec.max
            outside, within = (values < low) | (values > high), f"{low:g} to {high:g}"
        elif spec.categories and spec.unseen == "refuse":
            outside, within = ~np.isin(values.astype(str), spec.categories), ", ".join(spec.categories)
        if outside.any():
            text = f"{int(outside.sum())} of {n} rows are outside of what [inputs] allows: {within}"
            yield self._finding("range", name, text, "mend the source, or the bounds", rows=known[outside])

    def _nulls(self, name: str, mend: str) -> Iterator[Finding]:
        rows = np.flatnonzero(self.frame[name].isna())
        if len(rows):
            yield self._finding("null", name, f"{len(rows)} of {len(self.frame)} rows have none", mend, rows=rows)

    def volume(self, last: Last | None) -> Iterator[Finding]:
        """Far fewer or more rows than the last time."""
        low, high = self.settings.validation.volume_min, self.settings.validation.volume_max
        if last is not None and not low <= (share := self.record.rows / max(1, last.rows)) <= high:
            text = f"{self.record.rows} rows are {share:.3g} times the {last.rows} of run {last.run_id} ({low:g} to {high:g})"
            yield self._finding("volume", "", text, "look at the source, or at volume_min and volume_max")

    def copies(self) -> Iterator[Finding]:
        """Inputs that name rows, or tell the label."""
        frame, labelled = self.frame, self.frame[self.record.label].notna().to_numpy(bool)
        labels, every = frame.loc[labelled, self.record.label], np.arange(len(frame))
        for name in self.settings.inputs:
            kind = self.settings.input(name).type
            if kind in ("int", "float", "string", "category") and names_rows(frame[name], frame[self.record.id], kind):
                text = f"names rows as {self.record.id} does: a model learns rows by heart"
                yield self._finding("id_copy", name, text, "take it out of [inputs]", rows=every)
            if told := tells_label(frame.loc[labelled, name], labels):
                text = f"{told}: it is not known when a prediction is asked for"
                concerned = (self.record.label,)
                yield self._finding("label_copy", name, text, "take it out of [inputs]", concerned, rows=every)

    def overlaps(self) -> Iterator[Finding]:
        """Training rows that tell about test rows."""
        asked, record, group = self.settings.validation, self.record, self.settings.split.group
        if not asked.time_overlap and not asked.group_overlap:
            return
        table = read_table(self.frame, id=record.id, event_time=record.event_time, label=record.label, group=group)
        parts = split(self.settings.split, table.ids, table.times, table.groups).parts
        train, test = np.concatenate([parts["train"], parts["validation"]]), parts["test"]
        late = train[table.times[train] >= table.times[test].min()]
        if asked.time_overlap and len(late):
            text = f"{len(late)} training rows are as late as test rows"
            yield self._finding(
                "time_overlap", record.event_time, text, 'say kind = "time" in [split]', rows=np.sort(late)
            )
        if asked.group_overlap and table.groups is not None:
            both = train[np.isin(table.groups[train].astype(str), table.groups[test].astype(str))]
            if len(both):
                text = f"{len(both)} training rows are of groups that test rows have too"
                yield self._finding("group_overlap", group, text, 'say kind = "group" in [split]', rows=np.sort(both))

    def _finding(
        self, rule: Rule, column: str, text: str, mend: str, more: tuple[str, ...] = (), *, rows: Array | None = None
    ) -> Finding:
        word = f"{rule}:{column}"
        known = {rule, word} & set(self.settings.validation.accept)
        shown: list[dict[str, Any]] = []
        if rows is not None:
            columns = list(dict.fromkeys((self.record.id, column, *more)))
            told = self.frame[columns].iloc[rows[:KEPT]].to_json(orient="records", date_format="iso", date_unit="us")
            shown = msgspec.json.decode(told)
        return Finding(
            rule=rule,
            column=column,
            verdict="accepted" if known else "failed",
            count=0 if rows is None else len(rows),
            text=f"{column}: {text}" if column else text,
            next=f'{mend}; if it is meant: accept = ["{word.rstrip(":")}"] in [validation]',
            rows=shown,
        )


def _misfits(spec: Input, frame: pd.DataFrame) -> tuple[Array, str]:
    """The first `KEPT` rows that cannot travel as `spec`, found by halves with the cast itself, and why the first cannot."""
    found: list[int] = []
    why = ""
    halves = [(0, len(frame))]
    while halves and len(found) < KEPT:
        start, end = halves.pop()
        try:
            from_frame((spec,), frame.iloc[start:end])
        except InvalidData as error:
            if end - start == 1:
                found.append(start)
                why = why or error.message
            else:
                middle = (start + end) // 2
                halves += [(middle, end), (start, middle)]
    return np.array(found, np.int64), why


def last_run(database: Database, spec: RunSpec) -> Last | None:
    """The newest run of this model that succeeded on this extract."""
    query = select(runs.c.id, runs.c.spec, runs.c.validation).order_by(runs.c.created_at.desc())
    past = (runs.c.model == spec.model) & (runs.c.state == "succeeded") & runs.c.validation.is_not(None)
    with database.read() as connection:
        for row in connection.execute(query.where(past)):
            if msgspec.json.decode(row.spec, type=RunSpec).extract == spec.extract:
                return Last(row.id, msgspec.json.decode(row.validation, type=Validation).rows)
    return None


def keep(database: Database, run: str, validation: Validation, folder: Path) -> Path:
    """Write it to the run's folder, and with few rows to the run's record; the file."""
    write_atomic(folder / FILE, msgspec.json.format(msgspec.json.encode(validation)))
    text = msgspec.json.encode(validation.first(SHOWN)).decode()
    with database.write() as connection:
        connection.execute(update(runs).where(runs.c.id == run).values(validation=text))
    return folder / FILE


def told(finding: Finding) -> str:
    """A finding with its first rows, a line each."""
    rows = (", ".join(f"{name} {value}" for name, value in row.items()) for row in finding.rows[:SHOWN])
    return "\n  ".join((f"validation {finding.verdict}: {finding.rule}, {finding.text}", *rows))


def refuse(validation: Validation, file: Path | None) -> None:
    """End the run if a rule has failed.

    Raises:
        InvalidData: with the rows of the first finding, the number of others, and the file that holds all.
    """
    if not validation.failed:
        return
    first, *others = validation.failed
    more = (
        f"; and {len(others)} more: {', '.join(f'{one.rule} {one.column}'.strip() for one in others)}" if others else ""
    )
    where = f". The rows: {file}" if file else ""
    raise InvalidData(told(first) + more + where, next=first.next)
