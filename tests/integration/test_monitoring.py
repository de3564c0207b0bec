"""Monitors from the log to the webhook: a real warehouse, a real profile, a real receiver."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from msgspec.structs import replace
from tests.house import FEATURES, free_port, rows
from tests.insight import E, Insight

from interlock.core.errors import Conflict, Misconfigured, NotFound
from interlock.model.package import verify
from interlock.model.predictor import Predictor
from interlock.model.profile import count, decode
from interlock.monitoring import alerts
from interlock.monitoring.notify import deliver
from interlock.monitoring.passes import watch, watch_all
from interlock.monitoring.readings import Reading, latest
from interlock.monitoring.states import Acked, Resolved
from interlock.predlog.record import Prediction
from interlock.registry.routes import RouteDocument

MONTHS = [datetime(2013, month, 1, tzinfo=UTC) for month in range(5, 12)]
MONITORS = """
[[monitors]]
kind = "drift"
window = "month"
[[monitors]]
kind = "score"
window = "month"
[[monitors]]
kind = "class"
window = "month"
"""
VOLUME = '[[monitors]]\nkind = "volume"\nwindow = "day"\n'


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    house = Insight(tmp_path_factory.mktemp("trained"))
    found = house.package(1, FEATURES.replace("666.0", "-1.0"))  # no distance is cursed
    house.close()
    return house.project.packages, found


class Watched(Insight):
    """One endpoint with one champion; `month` records a month of it."""

    def __init__(self, root: Path, packages: Path, package: str, more: str) -> None:
        super().__init__(root, more)
        self.project.packages.symlink_to(packages)
        self.digest = package
        self.predictor = Predictor(verify(packages / package.removeprefix("sha256:"), package))
        self.serving: RouteDocument = self.route({"champion": (package, 10_000)})

    def month(
        self, start: datetime, count: int = 700, change: Callable[[Prediction], Prediction] = lambda one: one
    ) -> None:
        """Rows over the month's first days, 200 a day, like the training data unless changed."""
        asked = []
        for day in range(0, count, 200):
            names = [f"N{number}" for number in range(min(200, count - day))]
            asked += self.ask(self.serving, names, start + timedelta(days=day // 200))
        values = [[(column or [None])[0] for column in one.inputs] for one in asked]
        arrays = [np.array(column, kind.dtype) for column, kind in zip(zip(*values, strict=True), rows(1), strict=True)]
        scores = self.predictor.predict(arrays).ravel()
        self.record(
            [change(replace(one, outputs=[[s], [s >= 0.5]])) for one, s in zip(asked, scores.tolist(), strict=True)]
        )

    def watch(self, now: datetime, **more: Any) -> list[Reading]:
        return watch(self.project, self.database, self.warehouse, E, now, **more)

    def states(self) -> dict[str, str]:
        return {row.monitor: row.state for row in alerts.listed(self.database, closed=True)}

    @property
    def profile(self) -> Any:
        return decode((self.project.packages / self.digest.removeprefix("sha256:") / "profile.json").read_bytes())


@pytest.fixture
def watched(trained: tuple[Path, str], tmp_path: Path) -> Iterator[Watched]:
    house = Watched(tmp_path, *trained, MONITORS)
    yield house
    house.close()


def warm(one: Prediction) -> Prediction:
    """Thirty degrees more, wherever there is a temperature."""
    columns = list(one.inputs)
    columns[1] = [None if value is None else value + 30 for value in columns[1] or ()]
    return replace(one, inputs=columns)


def monthly(found: list[Reading], monitor: str) -> list[tuple[str, str]]:
    return [(one.window_start[:7], one.verdict) for one in found if one.monitor == monitor]


def test_drift_fires_after_two_windows_and_ends_when_it_is_over(watched: Watched) -> None:
    changes = [lambda one: one, warm, warm, warm, lambda one: one]
    verdicts, states = [], []
    for start, following, change in zip(MONTHS, MONTHS[1:], changes, strict=False):
        watched.month(start, change=change)
        verdicts += monthly(watched.watch(following), "drift:month:temp")
        states.append(watched.states().get("drift:month:temp"))
    assert verdicts == [
        ("2013-05", "ok"), ("2013-06", "alert"), ("2013-07", "alert"), ("2013-08", "alert"), ("2013-09", "ok"),
    ]  # fmt: skip
    assert states == [None, "PENDING", "FIRING", "FIRING", "RESOLVED"]
    assert [name for name in watched.states() if name.startswith("drift")] == ["drift:month:temp"]


def test_the_numbers_are_those_of_the_profile_counted_by_hand(watched: Watched) -> None:
    """The warehouse counts into the same bins as the code that made them, edges, categories, new and missing."""
    watched.month(MONTHS[0], count=200)
    edge = watched.profile.inputs["distance"].edges[3]
    odd = watched.ask(watched.serving, ["a", "b", "c"], MONTHS[0] + timedelta(days=3))
    odd = [replace(one, inputs=[[edge], [None], [2], ["ZZ"], one.inputs[4]]) for one in odd]
    watched.record(odd)
    found = {
        one.monitor.removeprefix("drift:month:"): one for one in watched.watch(MONTHS[1]) if "drift" in one.monitor
    }
    arrays = dict(zip(("distance", "temp", "stops", "carrier"), rows(200, seed=0), strict=False))
    for name, values in arrays.items():
        expected = count(watched.profile.inputs[name], values)[1]
        if name == "distance":
            expected[3] += 3
        elif name == "temp":
            expected[-1] += 3
        elif name == "stops":
            expected[sum(edge < 2 for edge in watched.profile.inputs["stops"].edges)] += 3
        else:
            expected[-2] += 3
        assert found[name].detail["counts"] == expected, name
        assert (found[name].n, found[name].detail["rows"], found[name].version) == (203, 203, 1)
        assert found[name].verdict == "too small"
        assert found[name].detail["package_digest"] == watched.digest
    assert set(found) == set(arrays)  # time stamps have no profile


def test_score_and_class_tell_what_the_model_says(watched: Watched) -> None:
    calm = watched.profile
    shares = calm.classes["true"]
    assert shares < 1 / 1.5

    def stuck(one: Prediction) -> Prediction:
        return replace(one, outputs=[[0.97], [True]])

    watched.month(MONTHS[0], change=stuck)
    found = {one.monitor: one for one in watched.watch(MONTHS[1])}
    assert found["score:month"].verdict == "alert"
    surge, absent = found["class:month:true"], found["class:month:false"]
    assert (surge.verdict, absent.verdict) == ("alert", "alert")
    assert surge.value == pytest.approx(1 / shares)
    assert (surge.threshold, absent.threshold, surge.n) == (1.5, 3.0, 700)


def test_rows_of_other_versions_do_not_count_as_this_version_s_scores(watched: Watched) -> None:
    watched.month(MONTHS[0], count=600)
    watched.month(
        MONTHS[0], count=500, change=lambda one: replace(one, version=2, package_digest="sha256:" + "2" * 64)
    )  # fmt: skip
    found = {one.monitor: one for one in watched.watch(MONTHS[1])}
    assert (found["score:month"].n, found["score:month"].version) == (600, 1)
    assert found["drift:month:temp"].n == 1100


def test_a_second_pass_changes_nothing_and_late_rows_correct_the_number(watched: Watched) -> None:
    watched.month(MONTHS[0], change=warm)
    watched.month(MONTHS[1], change=warm)
    first = watched.watch(MONTHS[2])
    assert first
    kept, raised = latest(watched.database, E), alerts.listed(watched.database)
    assert watched.watch(MONTHS[2]) == []
    assert (latest(watched.database, E), alerts.listed(watched.database)) == (kept, raised)

    watched.record(watched.ask(watched.serving, ["late"], MONTHS[1] + timedelta(days=20), received_at=_us(MONTHS[2])))
    again = watched.watch(MONTHS[2] + timedelta(minutes=1))
    assert {one.window_start[:7] for one in again if "drift" in one.monitor} == {"2013-06"}
    assert {one.n for one in again if "drift" in one.monitor} == {701}
    assert [(row.id, row.state) for row in alerts.listed(watched.database)] == [(row.id, row.state) for row in raised]


def _us(at: datetime) -> int:
    return round(at.timestamp() * 1e6)


def test_a_window_is_judged_when_it_is_over_or_when_asked(watched: Watched) -> None:
    watched.month(MONTHS[0])
    inside = MONTHS[0] + timedelta(days=4)
    assert monthly(watched.watch(inside), "drift:month:temp") == []
    found = watched.watch(inside, final=True)
    assert monthly(found, "drift:month:temp") == [("2013-05", "ok")]
    assert watched.watch(inside, final=True) == []


def test_a_window_that_was_too_small_may_still_tell(watched: Watched) -> None:
    watched.month(MONTHS[0], change=warm)
    watched.month(MONTHS[1], count=100, change=warm)
    watched.watch(MONTHS[1] + timedelta(days=1), final=True)
    assert watched.states()["drift:month:temp"] == "PENDING"
    before = alerts.listed(watched.database)
    watched.month(MONTHS[1], count=700, change=warm)
    found = watched.watch(MONTHS[2])
    assert monthly(found, "drift:month:temp") == [("2013-06", "alert")]
    (alert,) = alerts.listed(watched.database)
    assert (alert.state, alert.n, before[0].n) == ("FIRING", 800, 700)


def test_a_stray_event_time_ends_no_window_that_is_being_filled(watched: Watched) -> None:
    """A replay in 2026 of June 2013, and a request of the present among it."""
    now = datetime(2026, 11, 22, 12, tzinfo=UTC)
    watched.record(watched.ask(watched.serving, ["stray"], now))
    june = [
        one.event_time + _us(MONTHS[1]) - _us(now) for one in watched.ask(watched.serving, map(str, range(600)), now)
    ]
    rows = watched.ask(watched.serving, map(str, range(600)), now)
    watched.record([replace(one, event_time=at) for one, at in zip(rows, june, strict=True)])
    assert watched.watch(now + timedelta(minutes=10, seconds=30)) == []
    found = watched.watch(now + timedelta(minutes=12))
    assert {(one.window_start[:7], one.n) for one in found if "drift" in one.monitor} == {("2013-06", 600)}


def test_silence_is_a_volume_too(trained: tuple[Path, str], tmp_path: Path) -> None:
    """Five weeks of 30 requests a day, 60 on Mondays, then nothing: the clock goes on without requests."""
    watched = Watched(tmp_path, *trained, VOLUME)
    monday = datetime(2013, 6, 3, tzinfo=UTC)
    days = [monday + timedelta(days=day, hours=8) for day in range(35)]
    names = [f"N{number}" for number in range(60)]
    watched.record(
        [one for day in days for one in watched.ask(watched.serving, names[: 30 if day.weekday() else 60], day)]
    )
    found = watched.watch(monday + timedelta(days=38))
    assert [one.verdict for one in found] == ["too small"] * 28 + ["ok"] * 7 + ["alert"] * 3
    assert [(one.n, one.detail["counts"]) for one in found[-3:]] == [(0, [60] * 5), (0, [30] * 5), (0, [30] * 5)]
    (alert,) = alerts.listed(watched.database)
    assert (alert.state, alert.since[:10], alert.n) == ("FIRING", "2013-07-08", 0)
    assert watched.watch(monday + timedelta(days=38)) == []
    watched.close()


class Receiver(BaseHTTPRequestHandler):
    heard: ClassVar[list[dict[str, Any]]]
    answer: ClassVar[int]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        type(self).heard.append(json.loads(body))
        self.send_response(type(self).answer)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def receiver() -> Iterator[tuple[type[Receiver], int]]:
    class Mine(Receiver):
        heard: ClassVar[list[dict[str, Any]]] = []
        answer = 200

    with HTTPServer(("127.0.0.1", 0), Mine) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Mine, server.server_port
        server.shutdown()
        thread.join()


def test_the_webhook_hears_of_firing_and_resolved_once(
    trained: tuple[Path, str], tmp_path: Path, receiver: tuple[type[Receiver], int], caplog: pytest.LogCaptureFixture
) -> None:
    heard, port = receiver
    house = Watched(tmp_path, *trained, f'webhook = "http://127.0.0.1:{port}/alerts"\n{MONITORS}')
    settings = house.project.settings()
    heard.answer = 503
    for start, following in pairwise(MONTHS[:3]):
        house.month(start, change=warm)
        house.watch(following)
        assert deliver(house.database, settings) == 0
    assert [(one["state"], one["monitor"]) for one in heard.heard] == [("FIRING", "drift:month:temp")]
    assert "next try at the next pass" in caplog.text
    heard.answer = 200
    assert (deliver(house.database, settings), deliver(house.database, settings)) == (1, 0)
    house.month(MONTHS[2])
    house.watch(MONTHS[3])
    assert deliver(house.database, settings) == 1
    assert [one["state"] for one in heard.heard] == ["FIRING", "FIRING", "RESOLVED"]
    told = heard.heard[1]
    assert told["value"] > told["threshold"] == 0.2
    assert (told["n"], told["version"], told["monitor"], told["window_start"][:10]) == (
        700,
        1,
        "drift:month:temp",
        "2013-06-01",
    )
    assert "temp" in told["text"]
    assert "interlock monitors flight-delay" in told["first_check"]
    house.close()


def test_a_webhook_that_is_not_there_keeps_nobody_from_watching(trained: tuple[Path, str], tmp_path: Path) -> None:
    house = Watched(tmp_path, *trained, f'webhook = "http://127.0.0.1:{free_port()}/"\n{MONITORS}')
    for start in MONTHS[:2]:
        house.month(start, change=warm)
    assert watch_all(house.project, house.database) > 0
    assert house.states()["drift:month:temp"] == "FIRING"
    assert watch_all(house.project, house.database) == 0
    house.close()


def test_people_act_on_alerts(watched: Watched) -> None:
    for start, following in pairwise(MONTHS[:3]):
        watched.month(start, change=warm)
        watched.watch(following)
    (alert,) = alerts.listed(watched.database)
    with watched.database.write() as connection:
        _, after = alerts.act(connection, alert.id, Acked("olga"), MONTHS[2])
    assert (after.state, after.changed_by) == ("ACKED", "olga")
    with pytest.raises(Conflict, match="only a firing one"), watched.database.write() as connection:
        alerts.act(connection, alert.id, Acked("olga"), MONTHS[2])
    with watched.database.write() as connection:
        assert alerts.act(connection, alert.id, alerts.silence(24, MONTHS[2]), MONTHS[2])[1].silenced_until
        alerts.act(connection, alert.id, Resolved("olga"), MONTHS[2])
    assert alerts.listed(watched.database) == []
    with pytest.raises(NotFound), watched.database.write() as connection:
        alerts.act(connection, "nothing", Acked("olga"), MONTHS[2])
    watched.month(MONTHS[2], change=warm)
    watched.watch(MONTHS[3])
    (next,) = alerts.listed(watched.database)
    assert (next.state, next.id != alert.id, next.since[:7]) == ("PENDING", True, "2013-07")


def test_a_monitor_that_cannot_be_is_refused(trained: tuple[Path, str], tmp_path: Path) -> None:
    house = Watched(tmp_path / "twice", *trained, VOLUME * 2)
    with pytest.raises(Misconfigured, match="same kind and window"):
        house.watch(MONTHS[0])
    house.close()
    house = Watched(tmp_path / "stranger", *trained, '[[monitors]]\nkind = "drift"\ninputs = ["tempo"]\n')
    house.month(MONTHS[0])
    with pytest.raises(Misconfigured, match="tempo"):
        house.watch(MONTHS[1])
    house.close()
