"""Predicted against realised changes: a real warehouse, real packages and approvals, and rows as gateways log them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from tests.insight import E, Insight
from tests.trees import package

from interlock.core.clock import SystemClock, iso
from interlock.core.hashing import canonical
from interlock.core.ids import uuid7_text
from interlock.model.signature import Input, Signature
from interlock.monitoring import alerts
from interlock.monitoring.pairs import Pairs, releases
from interlock.monitoring.readings import latest
from interlock.monitoring.realised import Realised, measure, watch_changes
from interlock.predlog.record import Field, Prediction, Schema
from interlock.predlog.rows import prediction_tables
from interlock.registry import evidence
from interlock.registry.routes import Parameters, RouteDocument, Rule, Shadow, replica_name

START = SystemClock().now().replace(minute=0, second=0, microsecond=0) + timedelta(hours=2)
"""Over an hour ahead, so that it is later than every approval, however long the tests before take."""
NAME = f"{E}:1 → {E}:2"
LABELS = {False: "false", True: "true"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    house = Insight(tmp_path_factory.mktemp("trained"))
    found = [package(house, seed) for seed in (1, 2)]
    house.close()
    return house.project.packages, found


class Released(Insight):
    """Version 2 serves, by an approval that binds a diff; version 1 is the shadow."""

    def __init__(self, root: Path, packages: Path, found: list[str]) -> None:
        super().__init__(root)
        self.project.packages.symlink_to(packages)
        self.old, self.new = found
        self.rng = np.random.default_rng(7)

    def bind(self, moves: dict[tuple[str, str], int], found: str, **more: Any) -> None:
        """Approve a package by a diff from version 1 to version 2: rows by decision before and after."""
        sides = [
            {
                "subject": {"model": E, "version": number, "package_digest": side},
                "parameters": {"ACTIVATE": True, "THRESHOLD": 0.5, "FALLBACK": "error"},
                "rules": [],
                "rules_digest": "",
                "left_out": [],
            }
            for number, side in ((1, self.old), (2, self.new))
        ]
        transitions = [
            {"before": one, "after": other, "changed": one != other, "rows": count}
            for (one, other), count in moves.items()
        ]
        changes = {"rows": sum(moves.values()), "transitions": transitions, "slices": [], **more}
        document = {
            "format": 1,
            "endpoint": E,
            "before": sides[0],
            "after": sides[1],
            "changes": changes,
            "tolerance": 0.0,
        }
        with self.database.write() as connection:
            digest = evidence.store(connection, "diff", canonical(document), self.new, self.old, "", "rob")
        self.approve(found, diff=digest)

    def release(self, live: str, shadow: str, **more: Any) -> RouteDocument:
        name = (replica_name(shadow, 1, shadow=True),)
        other = Shadow(E, 2, shadow, "", name, name="shadow")
        return self.route({"champion": (live, 10_000)}, shadows=(other,), **more)

    def both(
        self, route: RouteDocument, count: int, at: datetime, rates: tuple[float, float], **fixed: Any
    ) -> list[Prediction]:
        """`count` requests that both answer; of those, shares that go from false to true, and from true to false."""
        asked = self.ask(route, [f"{at:%j%H}-{uuid7_text()}" for _ in range(count)], at, **fixed)
        up, down = (self.rng.random(count) < rate for rate in rates)
        old = self.rng.random(count) < 0.3
        new = np.where(old, ~down, up)
        shadow, said = route.shadows[0], {self.old: old.tolist(), self.new: new.tolist()}
        mine = {"role": "shadow", "arm": "shadow", "version": 2, "package_digest": shadow.package_digest}
        rows = []
        for i, one in enumerate(asked):
            rows.append(replace(one, outputs=[[0.5], [said[one.package_digest][i]]]))
            rows.append(replace(one, outputs=[[0.5], [said[shadow.package_digest][i]]], **mine))
        self.record(rows)
        return rows

    def watch(self, at: datetime) -> tuple[Realised, list[str]]:
        """A pass at that time; the comparison and the open alerts."""
        (found,) = [found for found, _, _ in measure(self.project, self.database, self.warehouse, E, at)]
        watch_changes(self.project, self.database, self.warehouse, E, at)
        return found, [row.state for row in alerts.listed(self.database)]


FIVE = {("false", "false"): 6650, ("false", "true"): 350, ("true", "false"): 150, ("true", "true"): 2850}
"""5 % change: 5 % of the false ones and 5 % of the true ones, of which there are 30 %."""


@pytest.fixture
def house(trained: tuple[Path, list[str]], tmp_path: Path) -> Iterator[Released]:
    made = Released(tmp_path, *trained)
    yield made
    made.close()


def part(found: Realised, what: str) -> Any:
    return next(one for one in found.parts if one.what == what)


def test_a_release_that_does_what_was_signed_is_quiet_and_one_that_does_not_is_told(house: Released) -> None:
    house.bind(FIVE, house.new)
    route = house.release(house.new, house.old)
    house.both(route, 400, START, (0.05, 0.05))
    assert house.watch(START + timedelta(minutes=30))[0].verdict == "too small"
    house.both(route, 400, START + timedelta(hours=1), (0.05, 0.05))
    found, states = house.watch(START + timedelta(hours=1, minutes=30))
    assert (found.verdict, states) == ("ok", [])
    assert (found.release, found.rows, found.pairs) == (NAME, 800, 800)
    assert found.design_effect == pytest.approx(1, abs=0.01)
    assert part(found, "all").predicted.share == 0.05
    assert part(found, "all").realised.low < 0.05 < part(found, "all").realised.high
    for minutes, expected in ((0, ["PENDING"]), (20, ["FIRING"])):  # the second pass, not the second hour
        house.both(route, 300, START + timedelta(hours=5, minutes=minutes), (0.6, 0.05))
        found, states = house.watch(START + timedelta(hours=5, minutes=minutes + 15))
        assert states == expected
    (alert,) = alerts.listed(house.database)
    assert (alert.monitor, alert.slice, alert.value) == ("changed-decisions:hour", NAME, part(found, "all").apart)
    assert "the diff said 5.00%" in alert.sentence
    assert f"interlock realised {E}" in alert.first_check
    again, states = house.watch(START + timedelta(hours=5, minutes=40))
    assert (again, states) == (found, ["FIRING"])  # nothing new, nothing moves
    house.route({"champion": (house.new, 10_000)})  # the shadow is retired
    assert watch_changes(house.project, house.database, house.warehouse, E, START + timedelta(hours=6)) == []
    assert alerts.listed(house.database) == []
    (ended,) = alerts.listed(house.database, closed=True)
    assert (ended.state, "no longer asked" in ended.sentence) == ("RESOLVED", True)


def test_passes_count_new_rows_only_and_add_up(house: Released) -> None:
    house.bind(FIVE, house.new)
    route = house.release(house.new, house.old)
    for hour in range(5):
        house.both(route, 30, START + timedelta(hours=hour), (0.1, 0.1))
        found, _ = house.watch(START + timedelta(hours=hour, minutes=30))
    late = house.both(route, 50, START + timedelta(hours=3, minutes=30), (0.1, 0.1))  # within the hour that stays open
    found, _ = house.watch(START + timedelta(hours=5))
    (one,) = releases(house.project, house.database, E, START)
    hours = Pairs(house.warehouse, one, START - timedelta(hours=1)).count()
    assert len(late) == 100
    assert found.pairs == 200 == sum(counts["all"][1] for counts in hours.values())
    assert found.parts[0].realised.share * 200 == pytest.approx(sum(counts["all"][2] for counts in hours.values()))
    (kept,) = latest(house.database, E)
    assert (kept.n, kept.detail["open"]) == (200, iso(START + timedelta(hours=3)))  # what is older is not read again


def test_equal_shares_do_not_hide_a_swap(house: Released) -> None:
    house.bind({**FIVE, ("false", "true"): 490, ("true", "false"): 10}, house.new)
    route = house.release(house.new, house.old)
    house.both(route, 3000, START, (0.0015, 0.163))  # 5 % again, the other way
    found, states = house.watch(START + timedelta(hours=1))
    assert part(found, "all").verdict == "as predicted"
    assert part(found, "direction:true → false").verdict == "more"
    assert (found.verdict, found.worst.what, states) == ("alert", found.worst.what, ["PENDING"])
    assert found.worst.what.startswith("direction:")


def test_one_slice_that_differs_is_named(house: Released) -> None:
    slices = [
        {"column": "carrier", "value": name, "n": n, "changed": n // 20}
        for name, n in (("AA", 5000), ("B6", 5000), ("UA", 50))
    ]
    house.bind(FIVE, house.new, slices=slices)
    route = house.release(house.new, house.old)
    carriers = [[1000.0], [10.0], [1], ["AA"], [1_370_000_000_000_000]]
    house.both(route, 1500, START, (0.07, 0.07), inputs=carriers)
    house.both(route, 500, START + timedelta(minutes=30), (0.0, 0.0), inputs=[*carriers[:3], ["B6"], carriers[4]])
    house.both(route, 500, START + timedelta(minutes=40), (0.05, 0.05), inputs=[*carriers[:3], ["UA"], carriers[4]])
    found, _ = house.watch(START + timedelta(hours=1))
    assert part(found, "all").verdict == "as predicted"
    assert (found.verdict, found.worst.what) == ("alert", "slice:carrier = B6")
    assert "slice:carrier = UA" not in {one.what for one in found.parts}  # too few in the diff to be predicted


def test_dropped_shadows_make_no_pair_and_are_said(house: Released) -> None:
    house.bind(FIVE, house.new)
    route = house.release(house.new, house.old)
    rows = house.both(route, 600, START, (0.05, 0.05))
    alone = house.ask(route, [f"U{i}" for i in range(400)], START)
    slow = {
        "role": "shadow",
        "arm": "shadow",
        "package_digest": house.old,
        "outcome": "timeout",
        "outputs": [],
        "rows": 0,
    }
    house.record([*alone, *(replace(one, **slow) for one in alone[:100])])
    found, _ = house.watch(START + timedelta(hours=1))
    assert (found.rows, found.pairs) == (1000, len(rows) // 2)
    assert "the shadow answered 600 of 1,000 rows" in found.sentence


def test_rows_of_one_unit_count_together(house: Released) -> None:
    house.bind(FIVE, house.new)
    route = house.release(house.new, house.old)
    house.both(route, 1000, START, (0.05, 0.05))
    house.both(route, 300, START, (1.0, 1.0), unit_id="one loud client")
    found, states = house.watch(START + timedelta(hours=1))
    assert found.parts[0].realised.share > 0.25
    assert found.design_effect > 100
    assert (found.verdict, states) == ("ok", [])


def test_only_what_the_diff_is_about_counts(house: Released) -> None:
    """Rows under another THRESHOLD or other rules are not compared; a break begins anew; no shadow, nothing to say."""
    house.bind(FIVE, house.new)
    route = house.release(house.new, house.old)
    same = {"champion": (house.new, 10_000)}
    house.both(route, 500, START, (0.05, 0.05))
    far = (Rule("far", "input.distance > 1.0", "refuse", "no"),)
    for change in ({"parameters": Parameters(threshold=0.4)}, {"rules": far}):
        house.both(house.route(same, shadows=route.shadows, **change), 500, START, (0.9, 0.9))
    again = house.route(same, shadows=route.shadows, parameters=Parameters(retry=2))
    house.both(again, 100, START, (0.05, 0.05))
    found, _ = house.watch(START + timedelta(hours=1))
    assert (found.rows, found.pairs, found.verdict, found.revision) == (600, 600, "ok", route.revision)
    house.route(same)
    assert not list(measure(house.project, house.database, house.warehouse, E, START))
    house.both(house.route(same, shadows=route.shadows), 10, START, (0.05, 0.05))
    found, _ = house.watch(START + timedelta(hours=2))
    assert (found.pairs, found.revision) == (10, route.revision + 5)
    house.route(same)
    other = house.release(house.new, house.old, parameters=Parameters(threshold=0.1))
    house.both(other, 10, START, (0.05, 0.05))
    found, _ = house.watch(START + timedelta(hours=3))
    assert (found.pairs, len(found.notes)) == (0, 1)


def test_before_the_release_the_candidate_may_be_the_shadow(house: Released) -> None:
    house.approve(house.old)
    house.bind(FIVE, house.new)
    route = house.release(house.old, house.new)
    house.both(route, 1500, START, (0.2, 0.0))
    found, states = house.watch(START + timedelta(hours=1))
    assert part(found, "direction:false → true").verdict == "more"
    assert part(found, "direction:true → false").verdict == "less"
    assert states == ["PENDING"]


def test_without_a_bound_diff_there_is_nothing_to_compare(house: Released) -> None:
    house.approve(house.new)
    house.both(house.release(house.new, house.old), 10, START, (0.9, 0.9))
    assert watch_changes(house.project, house.database, house.warehouse, E, START) == []


def test_values_are_otherwise_beyond_the_tolerance_and_examples_are_named(house: Released) -> None:
    """Regression, straight from the log: higher and lower, as the diff counts them."""
    house.bind(FIVE, house.new)
    route = house.release(house.new, house.old)
    (one,) = releases(house.project, house.database, E, START)
    task = Signature(task="regression", inputs=(Input("distance", "float"),))
    one = replace(one, signature=task, diff=replace(one.diff, tolerance=0.01))
    asked = house.ask(route, ["a", "b", "c", "d"], START, inputs=[[1.0]])
    values = [(100.0, 100.5), (100.0, 120.0), (100.0, 80.0), (0.0, 0.0)]
    live = [replace(row, outputs=[[new]]) for row, (_, new) in zip(asked, values, strict=True)]
    shadow = [
        replace(row, outputs=[[old]], role="shadow", arm="shadow", package_digest=house.old)
        for row, (old, _) in zip(asked, values, strict=True)
    ]
    schema = ((Field("distance", "float"),), (Field("value", "float"),))
    schemas = {found: Schema(found, *schema) for found in (house.old, house.new)}
    rows = prediction_tables([(uuid7_text(), row) for row in (*live, *shadow)], schemas)
    house.warehouse.append(rows, {})
    log = Pairs(house.warehouse, one, START)
    (counts,) = log.count().values()
    moves = {f"direction:value → {where}": [1, 1, 1] for where in ("higher", "lower")}
    assert counts == {"all": [4, 4, 2], **moves, "units": [4, 2, 2]}
    assert [row["prediction_id"] for row in log.examples(5)] == [asked[1].prediction_id, asked[2].prediction_id]
