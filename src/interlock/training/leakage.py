"""How far one raw column gives the label or the id away: pure functions over columns of one length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

FEW = 20
"""Rows of a class, and classes, up to which a separation may be chance, and beyond which a label is a number."""
AUC = 0.999
"""No honest single column parts the classes better than this."""
RANK = 0.999999
"""A column whose rank correlation with a number is beyond this is a function of it."""
SAMPLE = 1000
Floats = NDArray[np.float64]


def same(column: pd.Series[Any], other: pd.Series[Any]) -> bool:
    """Whether the columns are equal in all rows that have both, whatever their types, and are not constant there."""
    known = (column.notna() & other.notna()).to_numpy(bool)
    if not len(known) or known.mean() < 0.5:
        return False
    rows = np.flatnonzero(known)
    for picked in (rows[:: max(1, len(rows) // SAMPLE)], rows):  # a sample first: most columns differ at once
        if not _equal(column.iloc[picked], other.iloc[picked]):
            return False
    return bool(other.iloc[rows].nunique() > 1)


def _equal(column: pd.Series[Any], other: pd.Series[Any]) -> bool:
    mine, theirs = _numbers(column), _numbers(other)
    if not np.isnan(mine).any() and not np.isnan(theirs).any():
        return bool((mine == theirs).all())
    return bool((column.astype(str).to_numpy(object) == other.astype(str).to_numpy(object)).all())


def names_rows(column: pd.Series[Any], ids: pd.Series[Any], kind: str) -> bool:
    """Whether the column names rows as the id does: equal to it or to the number at its end, or a category of its own a row."""
    if same(column, ids):
        return True
    for step in (max(1, len(ids) // SAMPLE), 1):
        if not same(column.iloc[::step], ids.iloc[::step].astype(str).str.extract(r"(\d+)\D*$")[0]):
            return kind == "category" and len(column) > FEW and bool(column.nunique() == len(column))
    return True


def tells_label(column: pd.Series[Any], labels: pd.Series[Any]) -> str:
    """How the column gives the label away, in words; empty if it does not.

    A copy up to type; of few classes: every class parted from the others with an AUC over `AUC` (Mann-Whitney, as in
    Hanley and McNeil 1982) by the column's order, or by its values, where missing is one: each value counts by how often
    the class came with it in the other half of the rows, so values that come once tell nothing. Of a number: the ranks.
    """
    if same(column, labels):
        return "equals the label"
    numbers, codes = _numbers(column), None
    if labels.nunique() > FEW:
        correlation = _rank_correlation(numbers, _numbers(labels))
        return f"is a function of the label (rank correlation {correlation:.6f})" if abs(correlation) > RANK else ""
    worst = 1.0
    for value in labels.unique():
        positive = (labels == value).to_numpy(bool)
        best = _auc(numbers, positive)
        best = max(best, 1 - best)
        if best <= AUC:
            codes = _codes(column) if codes is None else codes
            best = _auc(_encoded(codes, positive), positive)
        worst = min(worst, best)
        if worst <= AUC:
            return ""
    return f"tells the label (AUC {worst:.6f} by this column alone)"


def _numbers(column: pd.Series[Any]) -> Floats:
    """The values as numbers where they are such, else NaN."""
    import pandas as pd
    from pandas.api.types import is_datetime64_any_dtype

    if is_datetime64_any_dtype(column):
        column = column.dt.tz_convert(None) if column.dt.tz else column
        column = (column - pd.Timestamp(0)) / pd.Timedelta(seconds=1)
    numbers: Floats = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    return numbers


def _codes(column: pd.Series[Any]) -> NDArray[np.int64]:
    import pandas as pd

    codes: NDArray[np.int64] = pd.factorize(column, use_na_sentinel=False)[0]
    return codes


def _encoded(codes: NDArray[np.int64], positive: NDArray[np.bool_]) -> Floats:
    """For each row the share of positives among the rows of its value in the other half; of all rows if there are none."""
    made = np.empty(len(codes))
    half = np.arange(len(codes)) % 2
    for mine in (0, 1):
        other = codes[half != mine]
        seen = np.bincount(other, minlength=codes.max() + 1)
        hits = np.bincount(other, weights=positive[half != mine], minlength=codes.max() + 1)
        share = np.divide(hits, seen, out=np.full(len(seen), positive.mean()), where=seen > 0)
        made[half == mine] = share[codes[half == mine]]
    return made


def _auc(score: Floats, positive: NDArray[np.bool_]) -> float:
    """P(score of a positive > score of a negative), ties a half, over rows that have one; 0.5 where they are too few."""
    known = ~np.isnan(score)
    score, positive = score[known], positive[known]
    n, m = int(positive.sum()), int((~positive).sum())
    if min(n, m) < FEW or known.mean() < 0.5:
        return 0.5
    return float((_ranks(score)[positive].sum() - n * (n + 1) / 2) / (n * m))


def _rank_correlation(one: Floats, other: Floats) -> float:
    known = ~(np.isnan(one) | np.isnan(other))
    if known.sum() <= FEW or known.mean() < 0.5 or len(np.unique(one[known])) < 2 or len(np.unique(other[known])) < 2:
        return 0.0
    return float(np.corrcoef(_ranks(one[known]), _ranks(other[known]))[0, 1])


def _ranks(values: Floats) -> Floats:
    """Ranks from 1; equal values share their mean rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks
