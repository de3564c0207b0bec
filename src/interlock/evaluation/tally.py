"""Counts decisions of two sides, page by page: arrays in, a struct out. Memory does not grow with the rows."""

from __future__ import annotations

import math
from itertools import zip_longest
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy
from msgspec.structs import replace

from interlock.evaluation.diff import Changed, Changes, Example, Labels, Shift, Slice, Transition, Value
from interlock.evaluation.metrics import Array, Floats
from interlock.evaluation.paired import benjamini_hochberg
from interlock.evaluation.resampling import LEVEL
from interlock.evaluation.slices import FALSE_DISCOVERY_RATE, MIN_ROWS
from interlock.model.signature import Signature

EXAMPLES, LARGEST, EACH = 20, 10, 3
"""Examples in all, of them the largest shifts of the score, and kept of one transition."""
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
BARS = 40
WITHOUT = ("refused", "deactivated", "invalid", "error")
"""Decisions without a label."""


class Decisions:
    """Codes of decisions: the labels, the labels as fixed answers, then those without a label; regression has one label."""

    def __init__(self, signature: Signature) -> None:
        said = [str(one).lower() if isinstance(one, bool) else str(one) for one in signature.classes] or ["value"]
        self.labels = len(said)
        self.regression = signature.task == "regression"
        self.names = [*said, *(f"fallback {one}" for one in said), *WITHOUT, "higher", "lower"]
        """By code; the last two stand only behind an arrow."""

    def code(self, name: str) -> int:
        """The code of a decision without a label, or of a direction."""
        return self.names.index(name, 2 * self.labels)

    def label_of(self, codes: Array) -> Array:
        """Positions of the labels; -1 = none."""
        return np.where(codes < 2 * self.labels, codes % self.labels, -1)


class Compared(NamedTuple):
    """Rows that both sides decided. `scores`: NaN where no model was asked; `label`: position or value, NaN = unknown."""

    before: Array
    after: Array
    score_before: Floats
    score_after: Floats
    label: Floats
    worth: Floats
    slices: list[Array]
    """For each column the position of the row's value."""
    ids: Any
    """Prediction ids: an Arrow array of texts."""
    row: Array


class Tally:
    """Counts of a diff, page by page. `slices`: column → names of its values; `value`: what the worth is called, or empty."""

    def __init__(self, decisions: Decisions, tolerance: float, slices: dict[str, list[str]], value: str = "") -> None:
        self.decisions, self.tolerance, self.value = decisions, tolerance, value
        self.requests = self.rows = self.labelled = 0
        self._slices = {name: np.zeros((4, len(values)), np.int64) for name, values in slices.items()}
        self._values = slices
        self._pairs: dict[tuple[int, int], Array] = {}
        self._worth = np.zeros(4)
        self._helped = self._harmed = 0
        self._shift = _Sketch()
        self._largest: list[tuple[float, str, Example]] = []
        self._first: dict[tuple[int, int], list[Example]] = {}

    def add(self, page: Compared) -> None:
        """Count rows; whole requests, in the order of the log."""
        names, known = self.decisions, ~np.isnan(page.label)
        before, after, moved = page.before, page.after, page.score_after - page.score_before
        changed = before != after
        if names.regression:
            size = np.maximum(np.abs(page.score_after), np.abs(page.score_before))
            further = (before == after) & (np.abs(moved) > self.tolerance * size)
            after = np.where(further, np.where(moved > 0, names.code("higher"), names.code("lower")), after)
            changed |= further
            wrong = [np.abs(score - page.label) for score in (page.score_before, page.score_after)]
            helped, harmed = changed & (wrong[1] < wrong[0]), changed & (wrong[0] < wrong[1])
            right = [np.zeros(len(known), bool)] * 2
        else:
            labels = [names.label_of(codes) for codes in (before, after)]
            right = [label == page.label for label in labels]
            judged = changed & known & (labels[0] >= 0) & (labels[1] >= 0)
            helped, harmed = judged & right[1] & ~right[0], judged & right[0] & ~right[1]
        self.requests += int((page.row == 0).sum())
        self.rows += len(changed)
        self.labelled += int(known.sum())
        self._helped, self._harmed = self._helped + int(helped.sum()), self._harmed + int(harmed.sum())
        self._count_pairs(before, after, known, right)
        for counts, codes in zip(self._slices.values(), page.slices, strict=True):
            for line, which in zip(counts, (None, changed, helped, harmed), strict=True):
                line += np.bincount(codes if which is None else codes[which], minlength=len(line))
        worth = np.nan_to_num(page.worth)
        self._worth += [
            (~np.isnan(page.worth[changed])).sum(),
            *(worth[one].sum() for one in (changed, helped, harmed)),
        ]
        asked = (page.before < names.labels) & (page.after < names.labels) & ~np.isnan(moved)
        self._shift.add(moved[asked])
        self._pick(page, after, np.flatnonzero(changed), np.where(asked, np.abs(moved), -1.0))

    def _count_pairs(self, before: Array, after: Array, known: Array, right: list[Array]) -> None:
        width = len(self.decisions.names)
        pairs, at = np.unique(before.astype(np.int64) * width + after, return_inverse=True)
        lines = [np.bincount(at[which], minlength=len(pairs)) for which in (known | True, known, *right)]
        for pair, *counts in zip(pairs.tolist(), *lines, strict=True):
            self._pairs[divmod(pair, width)] = self._pairs.get(divmod(pair, width), 0) + np.array(counts)

    def _pick(self, page: Compared, after: Array, changed: Array, size: Floats) -> None:
        """Keep examples: the largest shifts (equal ones by id), and the first rows of each transition."""

        def example(i: int) -> Example:
            first, second = _number(page.score_before[i]), _number(page.score_after[i])
            named = self.decisions.names[page.before[i]], self.decisions.names[after[i]]
            return Example(page.ids[i].as_py(), int(page.row[i]), *named, first, second, self._label(page.label[i]))

        for i in changed[np.argsort(-size[changed], kind="stable")][:LARGEST].tolist():
            one = example(i)
            self._largest.append((-float(size[i]), one.prediction_id, one))
        self._largest = sorted(self._largest, key=lambda kept: (*kept[:2], kept[2].row))[:LARGEST]
        width = len(self.decisions.names)
        pairs = page.before[changed].astype(np.int64) * width + after[changed]
        for pair in np.unique(pairs).tolist():
            if len(self._first) < EXAMPLES or divmod(pair, width) in self._first:
                kept = self._first.setdefault(divmod(pair, width), [])
                kept += [example(i) for i in changed[pairs == pair][: EACH - len(kept)].tolist()]

    def _label(self, label: float) -> str | float | None:
        if math.isnan(label):
            return None
        return float(label) if self.decisions.regression else self.decisions.names[int(label)]

    def result(self) -> Changes:
        """What was counted; of the transitions first those that change something, the most frequent before the others."""
        names, helped, harmed = self.decisions.names, self._helped, self._harmed
        found = {
            pair: Transition(names[pair[0]], names[pair[1]], pair[0] != pair[1], *counts.tolist())
            for pair, counts in self._pairs.items()
        }
        order = sorted(found, key=lambda pair: (not found[pair].changed, -found[pair].rows, pair))
        changed = sum(one.rows for one in found.values() if one.changed)
        known, *sums = self._worth.tolist()
        turns = zip_longest(*(self._first.get(pair, ()) for pair in order))
        examples = [one for *_, one in self._largest] + [one for turn in turns for one in turn if one is not None]
        return Changes(
            requests=self.requests,
            rows=self.rows,
            changed=Changed(changed, *_share(changed, self.rows)),
            transitions=tuple(found[pair] for pair in order),
            slices=tuple(self._sliced(changed)),
            labels=Labels(
                self.labelled, helped, harmed, changed - helped - harmed, helped - harmed, _mcnemar(helped, harmed)
            ),
            value=Value(self.value, int(known), *sums) if self.value else None,
            shift=self._shift.result(),
            examples=tuple(dict.fromkeys(examples))[:EXAMPLES],
        )

    def _sliced(self, changed: int) -> list[Slice]:
        found = []
        for column, counts in self._slices.items():
            for value, (n, moved, helped, harmed) in zip(self._values[column], counts.T.tolist(), strict=True):
                p = p_net = None
                rest = [changed - moved, self.rows - n - changed + moved]
                if n >= MIN_ROWS and self.rows > n:
                    p = float(scipy.stats.fisher_exact([[moved, n - moved], rest]).pvalue)
                if n >= MIN_ROWS and helped + harmed:
                    p_net = _mcnemar(helped, harmed)
                if n:
                    share = _share(moved, n)
                    found.append(Slice(column, value, n, moved, *share, helped, harmed, p, p_net, "too small"))
        for name in ("p", "p_net"):
            tested = [i for i, one in enumerate(found) if getattr(one, name) is not None]
            adjusted = benjamini_hochberg([getattr(found[i], name) for i in tested])
            for i, p in zip(tested, adjusted, strict=True):
                found[i] = replace(found[i], **{name: p})
        return [replace(one, verdict=_verdict(one, changed / max(self.rows, 1))) for one in found]


def _number(one: float) -> float | None:
    return None if math.isnan(one) else float(one)


def _verdict(one: Slice, overall: float) -> Literal["too small", "harmed", "helped", "more", "less", "alike"]:
    if one.n < MIN_ROWS:
        return "too small"
    if one.p_net is not None and one.p_net < FALSE_DISCOVERY_RATE:
        return "harmed" if one.harmed > one.helped else "helped"
    if one.p is not None and one.p < FALSE_DISCOVERY_RATE:
        return "more" if one.share > overall else "less"
    return "alike"


def _share(count: int, n: int) -> tuple[float, float, float]:
    """Share with the Wilson interval; 0 to 1 where there are no rows."""
    if not n:
        return 0.0, 0.0, 1.0
    interval = scipy.stats.binomtest(count, n).proportion_ci(LEVEL, method="wilson")
    return count / n, float(interval.low), float(interval.high)


def _mcnemar(helped: int, harmed: int) -> float:
    return float(scipy.stats.binomtest(helped, helped + harmed).pvalue) if helped + harmed else 1.0


class _Sketch:
    """Numbers in bins whose width is 2 % of them, on both sides of zero (DDSketch: Masson, Rim & Lee 2019): mergeable, and
    quantiles are right to 1 %. What is smaller than 1e-12 counts as zero, what is larger than 1e12 as that.
    """

    GAMMA = math.log(1.02)
    REACH = math.ceil(math.log(1e24) / GAMMA)

    def __init__(self) -> None:
        self.counts = np.zeros(2 * self.REACH + 1, np.int64)
        self.total = 0.0

    def add(self, numbers: Floats) -> None:
        """Count them."""
        size = np.clip(np.abs(numbers), 1e-12, 1e12)
        at = np.clip(np.ceil(np.log(size / 1e-12) / self.GAMMA), 0, self.REACH).astype(np.int64)
        self.counts += np.bincount(self.REACH + np.sign(numbers).astype(np.int64) * at, minlength=len(self.counts))
        self.total += float(numbers.sum())

    def result(self) -> Shift | None:
        """Mean, quantiles, and a histogram of what lies between the outermost thousandths; None for nothing."""
        n = int(self.counts.sum())
        if not n:
            return None
        at = np.arange(-self.REACH, self.REACH + 1)
        middle = np.sign(at) * 1e-12 * np.exp((np.abs(at) - 0.5) * self.GAMMA)
        ends = np.cumsum(self.counts)

        def quantile(q: float) -> float:
            return float(middle[np.searchsorted(ends, max(1, math.ceil(q * n)))])

        low, high = min(quantile(0.001), 0.0), max(quantile(0.999), 0.0)
        high = high if high > low else low + 1e-12
        bars = np.clip((middle - low) / (high - low) * BARS, 0, BARS - 1).astype(np.int64)
        counts = np.bincount(bars, self.counts, BARS).astype(np.int64)
        quantiles = {f"{q:g}": quantile(q) for q in QUANTILES}
        return Shift(n, self.total / n, quantiles, low, high, tuple(counts.tolist()))
