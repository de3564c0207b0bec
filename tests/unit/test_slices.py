from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from interlock.evaluation.metrics import measure
from interlock.evaluation.paired import compare
from interlock.evaluation.slices import by_slice

Array = npt.NDArray[np.float64]
Texts = npt.NDArray[np.str_]


def table(n: int = 6000, seed: int = 0) -> tuple[dict[str, Texts], Array, Array, Array]:
    """Carriers AA to FF of equal size, of which the candidate is worse in FF only; a column without any difference."""
    rng = np.random.default_rng(seed)
    carrier = np.array(["AA", "BB", "CC", "DD", "EE", "FF"])[np.arange(n) % 6]
    signal = rng.normal(size=n)
    y = (rng.random(n) < 1 / (1 + np.exp(-signal))).astype(float)
    champion = 1 / (1 + np.exp(-signal))
    candidate = 1 / (1 + np.exp(-signal - 0.05 * rng.normal(size=n)))
    candidate = np.where(carrier == "FF", 0.49, candidate)
    return {"carrier": carrier, "side": np.array(["left", "right"])[rng.integers(0, 2, n)]}, y, candidate, champion


def test_the_one_bad_slice_is_found_and_the_others_are_not() -> None:
    columns, y, candidate, champion = table()
    found = by_slice({"carrier": columns["carrier"]}, "binary", y, candidate, champion)
    assert [part.value for part in found] == ["AA", "BB", "CC", "DD", "EE", "FF"]
    assert {part.value for part in found if part.verdict == "worse"} == {"FF"}
    turned = by_slice({"carrier": columns["carrier"]}, "binary", y, champion, candidate)
    assert {part.value for part in turned if part.verdict == "better"} == {"FF"}


def test_a_slice_holds_what_its_rows_alone_give() -> None:
    columns, y, candidate, champion = table()
    rows = columns["side"] == "left"
    part = by_slice(columns, "binary", y, candidate, champion, 0.4)[6]
    assert (part.column, part.value, part.n, part.positives) == ("side", "left", rows.sum(), y[rows].sum())
    assert part.metrics == measure("binary", y[rows], candidate[rows], 0.4)
    assert part.champion == measure("binary", y[rows], champion[rows], 0.4)
    assert part.changes == compare("binary", y[rows], candidate[rows], champion[rows], 0.4, method="delta")


def test_p_values_are_adjusted_over_the_slices_of_all_columns() -> None:
    columns, y, candidate, champion = table()
    found = by_slice(columns, "binary", y, candidate, champion)
    raw = sorted(change.p for part in found for change in part.changes if change.metric == "brier")
    lowest = min(part.adjusted["brier"] for part in found)
    assert len(raw) == 8
    assert lowest == pytest.approx(min(p * 8 / rank for rank, p in enumerate(raw, 1)))


@pytest.mark.parametrize(("rows", "positives"), [(99, 50), (150, 19)])
def test_a_slice_that_is_too_small_is_never_passed(rows: int, positives: int) -> None:
    y = np.zeros(rows)
    y[:positives] = 1
    worst, best = 1 - y, y
    (part,) = by_slice({"all": np.full(rows, "x")}, "binary", y, worst, best)
    assert (part.verdict, part.changes, part.adjusted) == ("too small", [], {})
    assert part.metrics["accuracy"] == 0


def test_the_first_model_has_no_champion() -> None:
    columns, y, candidate, _ = table()
    found = by_slice(columns, "binary", y, candidate, None)
    assert {part.verdict for part in found} == {"measured"}
    assert all(part.champion is None and not part.changes for part in found)


def test_tasks_without_positives_need_rows_only() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=200)
    columns = {"half": np.repeat(["a", "b"], 100)}
    found = by_slice(columns, "regression", y, y + 1, y + 0.1 * rng.normal(size=200))
    assert [(part.positives, part.verdict) for part in found] == [(None, "worse"), (None, "worse")]


def test_rows_of_a_group_count_once() -> None:
    columns, y, candidate, champion = table(1200)
    tripled = {name: np.tile(values, 3) for name, values in columns.items()}
    y3, candidate3, champion3 = (np.tile(values, 3) for values in (y, candidate, champion))
    once = by_slice(columns, "binary", y, candidate, champion, groups=np.arange(1200))
    clustered = by_slice(tripled, "binary", y3, candidate3, champion3, groups=np.tile(np.arange(1200), 3))
    for part, tiled in zip(once, clustered, strict=True):
        assert [change.se for change in tiled.changes] == pytest.approx([change.se for change in part.changes])
