"""Load test and skew check as evidence: a real package and its server, a real log and warehouse, the installed command."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from tests.commands import SCRIPT, Commands
from tests.gate import PASSED
from tests.house import FEATURES, until
from tests.insight import E, Insight

from interlock.cli.evidence import loadtest_line, skew_line
from interlock.core.clock import SystemClock, from_us, iso
from interlock.core.errors import InvalidData, Misconfigured
from interlock.core.hashing import canonical
from interlock.evaluation.evaluate import Candidate
from interlock.evaluation.loadtest import LoadTest
from interlock.evaluation.skew import Skew, check_skew
from interlock.evaluation.subjects import registered
from interlock.model.package import read_manifest
from interlock.monitoring import alerts
from interlock.monitoring.passes import watch
from interlock.monitoring.readings import latest
from interlock.predlog.record import Prediction
from interlock.registry import evaluations, evidence
from interlock.registry.packages import PackageStore
from interlock.registry.versions import Versions
from interlock.release import audit

SLOW = FEATURES.replace(
    "    if (raw", '    import os, time\n    time.sleep(len(raw) * float(os.environ.get("SLOW", "0")))\n    if (raw'
)
SECONDS_A_ROW = 0.02
START = datetime(2013, 7, 1, tzinfo=UTC)
SQL = 'SELECT id, seen AS "at", distance, temp, stops, carrier, late FROM flights WHERE seen < $until::TIMESTAMPTZ'
CONFIG = """
[endpoint]
timeout_second = 1.0
[[monitors]]
kind = "skew"
min_n = 100
[skew]
variables = { until = "2040-01-01" }
"""


class Flights(Insight):
    """A champion that served flights, and a table of these flights in the warehouse."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, CONFIG)
        text = self.project.config.read_text().replace('sql = "select 1"', f"sql = '''{SQL}'''")
        text = text.replace("[inputs]", 'variables = { until = "1970-01-01" }\n[inputs]')
        self.project.config.write_text(text)
        self.digest = self.package(1, SLOW)
        versions = Versions(self.database, PackageStore(self.project.packages))
        manifest = read_manifest(versions.packages.find(self.digest))
        with self.database.write() as connection:
            versions.register(connection, manifest, self.digest)
            report = canonical({**PASSED, "package": self.digest})
            evaluations.store(connection, report, self.digest, None, iso(SystemClock().now()))
        self.approve(self.digest)
        self.serving = self.route({"champion": (self.digest, 10_000)})

    def fill(self, served: list[Prediction], known: list[Prediction]) -> None:
        """`served` into the log, `known` into the warehouse."""
        self.record(served)
        path = self.project.root / "flights.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "seen", "distance", "temp", "stops", "carrier", "late"])
            for one in known:
                distance, temp, stops, carrier, at = ((column or [None])[0] for column in one.inputs)
                when = iso(from_us(at))
                writer.writerow([one.request_id, when, distance, temp, stops, carrier, False])
        self.warehouse.load("flights", path, replace=True)

    def commands(self) -> Commands:
        return Commands(self.project.root, self.project.root, INTERLOCK_USER="ann", SLOW=str(SECONDS_A_ROW))


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flights]:
    """700 flights on one day, where the client sent kilometres instead of miles for three of ten. The table lacks the last
    ten, and the distance of number 19; number 9 was a request of two rows.
    """
    made = Flights(tmp_path_factory.mktemp("flights"))
    known = made.ask(made.serving, [f"N{number}" for number in range(700)], START)
    served = [
        replace(one, inputs=[[one.inputs[0][0] * 1.609], *one.inputs[1:]]) if at % 10 < 3 else one  # type: ignore[index]  # a list of floats
        for at, one in enumerate(known)
    ]
    twice = [[*column, *column] for column in known[9].inputs]  # type: ignore[misc]  # a list
    served[9] = replace(known[9], rows=2, inputs=twice, outputs=[[0.4, 0.4], [False, False]])
    known[19] = replace(known[19], inputs=[[None], *known[19].inputs[1:]])
    made.fill(served, known[:690])
    yield made
    made.close()


def candidate(flights: Flights) -> Candidate:
    return registered(Versions(flights.database, PackageStore(flights.project.packages)), f"{E}:1")


def test_the_planted_skew_is_found_with_its_share(flights: Flights) -> None:
    said = flights.commands().json("skew", f"{E}:1")
    found = msgspec.convert(said["skew"], Skew)
    assert (found.requests, found.rows, found.found) == (700, 701, 689)
    assert [(one.name, one.n, one.mismatched) for one in found.inputs] == [
        ("distance", 689, 208), ("temp", 689, 0), ("stops", 689, 0), ("carrier", 689, 0), ("at", 689, 0),
    ]  # fmt: skip
    gone, *others = found.examples
    assert (gone.input, gone.rebuilt) == ("distance", None)  # nothing is farther apart
    assert len(others) == 9
    for one in others:
        assert one.input == "distance"
        assert float(one.served or 0) / float(one.rebuilt or 0) == pytest.approx(1.609)
    kept = evidence.latest(flights.database, "skew", flights.digest)
    assert kept is not None
    assert (kept.digest, evidence.decode(kept, Skew)) == (said["digest"], found)
    (entry,) = audit.entries(flights.database, action="skew")
    assert (entry.subject, entry.values[1]) == (f"{E}:1", {"digest": said["digest"]})
    assert skew_line("v", kept).startswith("skew: differs: distance in 0.302 of 689; 689 of 701 logged rows")


def test_the_newest_requests_alone_and_another_key(flights: Flights) -> None:
    def check(last: int | None) -> Skew:
        return check_skew(flights.project, flights.warehouse, candidate(flights), E, last)

    assert [(one.n, one.mismatched) for one in check(20).inputs[:1]] == [(10, 3)]
    config, text = flights.project.config, flights.project.config.read_text()
    try:
        config.write_text(text.replace("[skew]", '[skew]\nkey = "unit_id"'))
        with pytest.raises(InvalidData, match="none of 701 logged rows is in the extract"):
            check(None)
        config.write_text(text.replace("[skew]", '[skew]\nkey = "tail"'))
        with pytest.raises(Misconfigured, match="'tail' is neither"):
            check(None)
    finally:
        config.write_text(text)


def test_the_monitor_names_the_input(flights: Flights) -> None:
    (reading,) = watch(flights.project, flights.database, flights.warehouse, E, START + timedelta(days=2))
    assert (reading.monitor, reading.threshold, reading.n, reading.verdict) == ("skew:day", 0.01, 689, "alert")
    assert reading.value == pytest.approx(208 / 689)
    assert reading.detail["counts"] == [208, 0, 0, 0, 0]
    (alert,) = alerts.listed(flights.database)
    assert "0.302 against 0.01 (skew, most of it in distance)" in alert.sentence
    assert "interlock skew" in alert.first_check


def test_a_monitor_that_fails_does_not_silence_the_others(flights: Flights) -> None:
    config, text = flights.project.config, flights.project.config.read_text()
    hourly = text.replace('kind = "skew"', 'kind = "skew"\nwindow = "hour"')
    config.write_text(hourly.replace("[skew]", '[[monitors]]\nkind = "volume"\n[skew]\nkey = "tail"'))
    with pytest.raises(Misconfigured, match="tail"):
        watch(flights.project, flights.database, flights.warehouse, E, START + timedelta(days=2))
    config.write_text(text)
    assert "volume:day" in {one.monitor for one in latest(flights.database, E)}


def test_a_slow_server_breaks_the_deadline_where_arithmetic_says(flights: Flights) -> None:
    """20 ms a row, one after the other, are 50 rows a second: a queue grows above that, and not far below."""
    said = flights.commands().json("loadtest", f"{E}:1", "--rate", "20", "--seconds", "1")
    found = msgspec.convert(said["loadtest"], LoadTest)
    capacity = 1 / SECONDS_A_ROW
    assert found.held_rate < 2 * capacity
    assert found.breaks_rate is not None
    assert capacity / 2 < found.breaks_rate < 2 * capacity
    assert found.alone_ms > 1000 * SECONDS_A_ROW
    assert [(one.name, one.rate) for one in found.steps[:2]] == [("expected", 20), ("twice", 40)]
    assert {one.errors for one in found.steps if one.verdict == "held"} == {0}
    assert (found.source, found.requests, found.rows, found.load.deadline_s) == ("log", 700, 701, 2.0)
    assert min(found.start_seconds, found.memory_mb, found.package_bytes, found.cores) > 0
    kept = evidence.latest(flights.database, "loadtest", flights.digest)
    assert kept is not None
    assert (kept.digest, evidence.decode(kept, LoadTest)) == (said["digest"], found)
    assert f"the deadline of 2 s breaks {found.limit}" in loadtest_line("v", kept)


def children(pid: int) -> list[int]:
    return [int(one) for task in Path(f"/proc/{pid}/task").iterdir() for one in (task / "children").read_text().split()]


def test_a_server_that_is_killed_leaves_no_half_evidence(flights: Flights) -> None:
    before = evidence.latest(flights.database, "loadtest", flights.digest)
    commands = flights.commands()
    words = [str(SCRIPT), "loadtest", f"{E}:1", "--rate", "20", "--seconds", "1", "--json"]
    with subprocess.Popen(
        words,
        cwd=commands.directory,
        env=commands.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if line.startswith("expected:"):  # now it is asked at twice that
                (server,) = until(lambda: children(running.pid))
                os.kill(server, signal.SIGKILL)
                break
        out, _ = running.communicate(timeout=60)
    assert running.returncode == 1
    error: dict[str, Any] = msgspec.json.decode(out)["error"]
    assert error["message"] == "the model server ended during the load test (exit code -9)"
    assert evidence.latest(flights.database, "loadtest", flights.digest) == before
