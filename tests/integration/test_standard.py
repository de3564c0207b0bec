"""What the release standard reads from the log: how long a candidate has answered as a shadow."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta

from tests.gate import Gate
from tests.insight import FIELDS, OUTPUTS

from interlock.core.clock import to_us
from interlock.core.ids import uuid7_text
from interlock.core.settings import StandardRule, StandardSettings
from interlock.evaluation.verdicts import Facts, lines
from interlock.predlog.record import Outcome, Prediction, Role, Schema
from interlock.predlog.rows import prediction_tables
from interlock.release.standard import Bench
from interlock.warehouse.ducklake import open_warehouse

E = "flight-delay"
START = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)


def logged(package: str, hours: float, role: Role = "shadow", outcome: Outcome = "answered") -> Prediction:
    at = to_us(START + timedelta(hours=hours))
    return Prediction(
        prediction_id=uuid7_text(), request_id="r", endpoint=E, received_at=at, event_time=at, unit_id="u",
        unit_source="client", experiment="", phase=1, arm="shadow", propensity=1.0, model=E, version=2,
        package_digest=package, route_revision=2, outcome=outcome, reason="", latency_us=1, model_us=1, seq=1, rows=1,
        inputs=[[1.0], [2.0], [3], ["AA"], [at]], outputs=[[0.4], [False]], role=role,
    )  # fmt: skip


def test_hours_as_a_shadow_are_those_of_the_clock_in_which_it_answered(gate: Gate) -> None:
    one, other = gate.version(1), gate.version(2)
    gate.say(one)
    gate.say(other, scope="shadow")
    gate.rollout().deploy(one, E, "champion")
    gate.rollout().deploy(other, E, "shadow")
    assert Bench(gate.project, gate.database, other).shadowed()["shadow_hours"].value == 0  # nothing was ever logged
    mine, champion = (gate.versions.named(name).package_digest for name in (other, one))
    rows = [logged(mine, hours) for hours in (0, 0.1, 0.6, 1, 5)]  # 9:30, 9:36, 10:06, 10:30, 14:30
    rows += [logged(mine, 7, "live"), logged(mine, 8, outcome="timeout"), logged(champion, 9)]
    schemas = {one: Schema(one, FIELDS, OUTPUTS) for one in (mine, champion)}
    with closing(open_warehouse(gate.project.warehouse, create=True, threads=1)) as warehouse:
        warehouse.append(prediction_tables([(uuid7_text(), row) for row in rows], schemas), {})
    found = Bench(gate.project, gate.database, other).shadowed()
    assert (found["shadow_hours"].value, found["shadow_hours"].n) == (3, 5)
    for hours, verdict in ((3, "pass"), (4, "fail")):
        standard = StandardSettings(rules=(StandardRule("shadow_hours", min=hours),))
        *_, line = lines(standard, "binary", Facts(None, found, {}))
        assert line.verdict == verdict
