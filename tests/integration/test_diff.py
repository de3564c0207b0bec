"""`interlock diff` as a person types it: real packages and model servers, and a log in a real warehouse."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sqlalchemy import update
from tests.house import INPUTS, SIGNATURE
from tests.insight import E, Insight

from interlock import cli
from interlock.cli import diff as cli_diff
from interlock.core import signing
from interlock.core.errors import Refused, Tampered
from interlock.core.files import write_atomic
from interlock.core.hashing import digest
from interlock.core.policy import Limits, Policy, Quorum
from interlock.evaluation import diff_views, logged, proof, replay
from interlock.evaluation.diff import Diff, decode, encode
from interlock.evaluation.proof import OfflineServer
from interlock.model.columns import pack, unpack
from interlock.model.package import read_manifest, verify
from interlock.model.predictor import Predictor
from interlock.predlog.record import Prediction
from interlock.registry import evidence
from interlock.registry.packages import PackageStore
from interlock.registry.routes import Parameters, RouteDocument, Rule
from interlock.registry.versions import Versions
from interlock.release import audit
from interlock.release.changes import Terms
from interlock.release.keys import Keys
from interlock.release.rollout import Outcome, Rollout
from interlock.release.rules import make_rule
from interlock.store import tables

START = datetime(2013, 7, 1, tzinfo=UTC)
LATER = START + timedelta(days=1)
DAY = ("--until", "2013-07-02T00:00:00Z")
FALLBACK = {"score": 0.4, "label": False}
ROWS = 300
HOSTILE = '"><script>alert(1)</script>|`'
Run = Callable[..., Diff]


def answered(house: Insight, package: str, predictions: list[Prediction]) -> list[Prediction]:
    """The same requests with the answers that the package really gives, threshold 0.5."""
    model = Predictor(verify(PackageStore(house.project.packages).find(package)))
    made = []
    for one in predictions:
        lists = [
            [np.nan if value is None and spec.type == "float" else value for value in column or ()]
            for spec, column in zip(INPUTS, one.inputs, strict=True)
        ]
        scores = model.predict(unpack(SIGNATURE, pack(SIGNATURE, lists)))[:, 0].tolist()
        made.append(msgspec.structs.replace(one, outputs=[scores, [score >= 0.5 for score in scores]]))
    return made


def hidden(one: Prediction, *positions: int) -> Prediction:
    """What LOG_INPUTS leaves of it."""
    inputs = [None if at in positions else column for at, column in enumerate(one.inputs)]
    return msgspec.structs.replace(one, inputs=inputs)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Insight]:
    """Two registered versions. On the first day version 1 answered, on the second strange things happened."""
    made = Insight(tmp_path_factory.mktemp("diff") / "project")
    made.project.config.write_text('slices = ["carrier", "gate"]\n' + made.project.config.read_text())
    made.packages_made = [made.package(1), made.package(2)]
    versions = Versions(made.database, PackageStore(made.project.packages))
    for found in made.packages_made:
        manifest = read_manifest(versions.packages.find(found), found)
        lineage = msgspec.structs.replace(manifest.lineage, run=found)
        with made.database.write() as connection:
            versions.register(connection, msgspec.structs.replace(manifest, lineage=lineage), found)
    first, second = made.packages_made
    arms = {"champion": (first, 10_000), "challenger": (second, 0)}
    route = made.route(arms, parameters=Parameters(fallback=FALLBACK))
    record(made, route, first)
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        started: dict[Path, OfflineServer] = {}

        def served(package: Path) -> contextlib.AbstractContextManager[OfflineServer]:
            """Real model servers, each started once: they take seconds to import scikit-learn."""
            if package not in started:
                started[package] = stack.enter_context(proof.offline_server(package))
            return contextlib.nullcontext(started[package])

        patch.setattr(replay, "offline_server", served)
        patch.setattr(cli_diff, "log_of", lambda _project, _endpoint: made.warehouse)
        patch.setenv("INTERLOCK_PROJECT", str(made.project.root))
        patch.setenv("INTERLOCK_USER", "ann")
        yield made
    made.close()


def record(house: Insight, route: RouteDocument, package: str) -> None:
    predictions = answered(house, package, house.ask(route, [f"N{i}" for i in range(ROWS)], START))
    two = {"rows": 2, "inputs": [[1.0, 2900.0], [None, 3.0], [1, 2], ["AA", HOSTILE], [1_370_000_000_000_000] * 2]}
    predictions += answered(house, package, house.ask(route, ["X1"], START + timedelta(hours=1), **two))
    labels = {one.prediction_id: float((one.outputs[0][0] > 0.45) ^ (i % 2)) for i, one in enumerate(predictions[:200])}
    house.record(predictions, labels)
    strange = answered(house, package, house.ask(route, [f"M{i}" for i in range(110)], LATER))
    left_out = [hidden(one, 2) for one in strange[:4]]
    left_out += house.ask(route, ["M9"], LATER, outcome="invalid", outputs=[], inputs=[], rows=0)
    house.record([*left_out, *strange[4:]])


@pytest.fixture
def run(house: Insight, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str) -> Diff:
        capsys.readouterr()
        code = cli.run(["diff", *words, "--json"])
        said = json.loads(capsys.readouterr().out)
        assert code == 0, said
        return decode(evidence.read(house.database, said["digest"]).document)

    return call


def moved(found: Diff) -> dict[tuple[str, str], int]:
    return {(one.before, one.after): one.rows for one in found.changes.transitions if one.changed}


def scores(house: Insight, version: int) -> list[float]:
    """What a version says to the rows of the first day."""
    table = house.warehouse.query("select * from interlock.predictions_flight_delay where event_time < '2013-07-02'")
    columns = [
        table.column(f"in_{spec.name}").cast(
            "int64" if spec.type == "timestamp" else table.column(f"in_{spec.name}").type
        )
        for spec in INPUTS
    ]
    lists = [[np.nan if v is None else v for v in column.to_pylist()] for column in columns]
    model = Predictor(verify(PackageStore(house.project.packages).find(house.packages_made[version - 1])))
    return [float(one) for one in model.predict(unpack(SIGNATURE, pack(SIGNATURE, lists)))[:, 0]]


def test_nothing_changes_between_a_version_and_itself(run: Run) -> None:
    found = run(f"{E}:1", f"{E}:1", *DAY)
    assert (found.requests, found.rows, found.changes.rows) == (ROWS + 1, ROWS + 2, ROWS + 2)
    assert (found.changes.changed.rows, found.changes.examples, moved(found)) == (0, (), {})
    assert (found.mismatch.compared, found.mismatch.differing) == (ROWS + 2, 0)
    assert len(found.speed) == 1  # one package: asked once
    assert found.notes == ("slice gate is no raw input, so the log cannot tell it",)


def test_a_threshold_changes_exactly_the_rows_in_between(run: Run, house: Insight) -> None:
    found = run(f"{E}:1", "--params", "THRESHOLD=0.3", "--value", "label", *DAY)  # any number of the feedback
    between = sum(0.3 <= score < 0.5 for score in scores(house, 1))
    assert between > 0
    assert moved(found) == {("false", "true"): between}
    labels = found.changes.labels
    assert (labels.labelled, labels.helped + labels.harmed + labels.unknown) == (200, between)
    assert labels.helped > 0 < labels.harmed
    value = found.changes.value
    assert value is not None
    assert (value.known, value.helped, value.harmed) == (labels.helped + labels.harmed, labels.helped, 0.0)
    assert found.before.parameters["THRESHOLD"] == 0.5
    assert found.after.parameters == {"ACTIVATE": True, "THRESHOLD": 0.3, "FALLBACK": FALLBACK}


def test_two_versions_differ_where_their_models_do(run: Run, house: Insight) -> None:
    found = run(f"{E}:1", f"{E}:2", "--value", "distance", *DAY)
    pairs = list(zip(scores(house, 1), scores(house, 2), strict=True))
    assert found.changes.changed.rows == sum((a >= 0.5) != (b >= 0.5) for a, b in pairs)
    assert found.changes.shift is not None
    assert found.changes.shift.mean == pytest.approx(np.mean([b - a for a, b in pairs]))
    assert found.changes.value is not None
    assert found.changes.value.known == found.changes.changed.rows
    assert {one.value for one in found.changes.slices} == {"AA", "B6", "UA", HOSTILE}
    assert sum(one.n for one in found.changes.slices) == found.rows
    for example in found.changes.examples:
        assert example.score_before is not None
        assert (example.before == "true") == (example.score_before >= 0.5)


def test_rules_decide_whole_requests(run: Run, house: Insight, tmp_path: Path) -> None:
    rule = tmp_path / "Far flights.cel"
    rule.write_text("input.distance > 2000.0 && unit != 'N0'")
    refused = run(f"{E}:1", "--rule", str(rule), *DAY)
    sql = "select count(*) as n from interlock.predictions_flight_delay where event_time < '2013-07-02' and WHERE"
    far = sql.replace("WHERE", "(in_distance > 2000 or unit_id = 'X1') and unit_id <> 'N0'")
    assert refused.changes.changed.rows == house.warehouse.query(far).column("n")[0].as_py()
    assert {after for _, after in moved(refused)} == {"refused"}
    assert (refused.after.rules[0].name, refused.before.rules) == ("far-flights", ())
    assert refused.changes.labels.helped == refused.changes.labels.harmed == 0
    fixed = run(f"{E}:1", "--rule", str(rule), "--then", "answer", "--output", '{"score": 0.9}', *DAY)
    assert {after for _, after in moved(fixed)} == {"fallback true"}
    other = run(f"{E}:1", f"{E}:2", "--rule", str(rule), "--then", "use", "--arm", "champion", *DAY)
    assert other.unsupported.rows == 0  # version 2 is the champion of its side
    assert other.changes.changed.rows == sum(
        (a >= 0.5) != (b >= 0.5) for a, b in zip(scores(house, 1), scores(house, 2), strict=True)
    )
    off = run(f"{E}:1", "--params", "ACTIVATE=false", *DAY)
    assert {after for _, after in moved(off)} == {"fallback false"}
    nowhere = run(f"{E}:1", "--rule", str(rule), "--then", "use", "--arm", "challenger", *DAY)
    assert nowhere.unsupported.rows == refused.changes.changed.rows
    assert "arm challenger" in nowhere.unsupported.reasons[0].reason


def test_what_cannot_be_replayed_is_counted_and_said_first(
    run: Run, house: Insight, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(f"{E}:1", f"{E}:1", "--since", "2013-07-02T00:00:00Z", "--until", "2013-07-03T00:00:00Z")
    told = {one.reason: one.rows for one in found.unsupported.reasons}
    assert told == {
        "input stops was left out of the log (LOG_INPUTS)": 4,
        "the request was invalid, so its inputs were not kept": 1,
    }
    assert (found.unsupported.rows, found.rows, found.changes.rows) == (5, 111, 106)
    assert cli.run(["diff", f"{E}:1", f"{E}:1", "--since", "2013-07-02T00:00:00Z", "--last", "108"]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == "2 of 108 rows (1.85 %) could not be replayed and are in no number"
    assert any(line.startswith("kept as diff sha256:") for line in rest)


def test_an_input_that_a_gateway_never_logged_was_left_out(run: Run, house: Insight) -> None:
    route = house.route(
        {"champion": (house.packages_made[0], 10_000)},
        rules=(Rule("cold", "input.temp < 0.0", "refuse", "too cold"),), parameters=Parameters(fallback=FALLBACK),
    )  # fmt: skip
    at = LATER + timedelta(days=1)
    house.record([hidden(one, 1) for one in house.ask(route, [f"T{i}" for i in range(120)], at)])
    found = run(f"{E}:1", f"{E}:1", "--since", "2013-07-03T00:00:00Z")
    assert [one.reason for one in found.unsupported.reasons] == ["input temp was left out of the log (LOG_INPUTS)"]
    assert (found.unsupported.share, found.changes.rows, found.mismatch.compared) == (1.0, 0, 0)
    house.route(
        {"champion": (house.packages_made[0], 10_000), "challenger": (house.packages_made[1], 0)},
        parameters=Parameters(fallback=FALLBACK),
    )


def test_a_log_that_says_otherwise_is_a_replay_mismatch(run: Run, house: Insight) -> None:
    route = house.route({"champion": (house.packages_made[0], 10_000)}, parameters=Parameters(fallback=FALLBACK))
    asked = answered(house, house.packages_made[0], house.ask(route, ["L1", "L2"], LATER + timedelta(days=2)))
    lied = msgspec.structs.replace(asked[0], outputs=[[0.123], [False]])
    house.record([lied, asked[1]])
    found = run(f"{E}:1", f"{E}:1", "--since", "2013-07-04T00:00:00Z")
    assert (found.mismatch.compared, found.mismatch.differing) == (2, 1)
    assert found.mismatch.examples == (lied.prediction_id,)
    assert "another answer than the log for 1 of 2 rows" in " ".join(diff_views.warnings(found))


def test_pages_and_batches_change_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (f"{E}:1", f"{E}:2", "--last", "200", *DAY)
    whole = run(*words).changes
    monkeypatch.setattr(logged, "PAGE_ROWS", 37)
    monkeypatch.setattr(replay, "BATCH_ROWS", 16)
    small = run(*words).changes
    assert whole.requests == 200
    assert whole.shift is not None is not small.shift
    mean = pytest.approx(whole.shift.mean)
    assert small.shift.mean == mean
    assert msgspec.structs.replace(small, shift=whole.shift) == whole
    assert small.shift.counts == whole.shift.counts


def test_views_escape_and_need_nothing_else(
    run: Run, house: Insight, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "diff.html"
    found = run(f"{E}:1", f"{E}:2", "--html", str(page), *DAY)
    text = page.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert not re.search(r"https?://|\bsrc=|url\(|@import", text)
    assert diff_views.headline(found) in text
    for tag in ("html", "head", "body", "table", "svg", "p", "h2"):
        assert len(re.findall(f"<{tag}[ >]", text)) == text.count(f"</{tag}>") > 0
    assert cli.run(["diff", f"{E}:1", f"{E}:2", "--markdown", *DAY]) == 0
    said = capsys.readouterr().out
    assert HOSTILE not in said
    assert "<script" not in said
    (line,) = [line for line in said.splitlines() if "alert" in line]
    assert len(re.findall(r"(?<!\\)\|", line)) == 12


def test_the_document_is_its_digest(run: Run, house: Insight, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(f"{E}:1", f"{E}:2", *DAY)
    kept = evidence.latest(house.database, "diff", house.packages_made[1], house.packages_made[0])
    assert kept is not None
    assert (kept.document.encode(), kept.created_by) == (encode(found), "ann")
    forged = encode(msgspec.structs.replace(found, rows=found.rows + 1)).decode()
    told = [entry.values[1]["digest"] for entry in audit.entries(house.database, action="diff")]
    assert kept.digest in told
    change = update(tables.evidence).where(tables.evidence.c.digest == kept.digest)
    with house.database.write() as connection:
        connection.execute(change.values(document=forged))
    with pytest.raises(Tampered):
        evidence.read(house.database, kept.digest)
    with house.database.write() as connection:
        connection.execute(change.values(document=kept.document))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((f"{E}:1",), "nothing to compare"),
        ((f"{E}:1", "--params", "TIMEOUT_SECOND=1"), "cannot show what TIMEOUT_SECOND changes"),
        ((f"{E}:1", "--params", "THRESHOLD=7"), "THRESHOLD is a probability"),
        ((f"{E}:1", f"{E}:2", "--last", "0"), "at least 1"),
        ((f"{E}:1", f"{E}:2", "--slice", "nose"), "no raw input of that name was logged"),
        ((f"{E}:1", f"{E}:2", "--value", "carrier"), "neither a raw input that is a number"),
        ((f"{E}:1", f"{E}:2", "--since", "yesterday"), "no time with an offset"),
        ((f"{E}:1", "--rule", "/nowhere.cel"), "No such file"),
    ],
)
def test_what_makes_no_sense_is_refused(
    house: Insight, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert cli.run(["diff", *words, "--json"]) == 2
    error: dict[str, Any] = json.loads(capsys.readouterr().out)["error"]
    assert said in error["message"]


def test_an_empty_range_says_so(house: Insight, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["diff", f"{E}:1", f"{E}:2", "--since", "2014-07-04T00:00:00Z"]) == 1
    assert "no request of flight-delay lies in this range" in capsys.readouterr().err


def test_the_line_of_a_refused_change_makes_the_diff_that_it_takes(run: Run, house: Insight, tmp_path: Path) -> None:
    """Params, rules that come and go, another arm: refused, the printed line typed, and then it waits for signatures."""
    for name, key in house.keys.items():
        write_atomic(tmp_path / name, signing.private_pem(key), 0o600)
        write_atomic(tmp_path / f"{name}.pub", signing.public_text(key.public_key()).encode())
    house.policy = Policy({"medium": Quorum(operators=2)}, {"default": Limits(medium=0.0)})
    house.write_trust()
    first, second = house.packages_made
    near = Rule("near", "input.distance < 1000.0", "answer", output={"score": 0.2, "label": False})
    arms = {"champion": (first, 10_000), "challenger": (second, 0)}
    house.route(arms, parameters=Parameters(fallback=FALLBACK, threshold=0.55), rules=(near,))
    rollout = Rollout(house.project, "olga", Keys(tmp_path))
    far = make_rule(name="far", when="input.distance > 2000.0", then="answer", output=FALLBACK)
    changes: list[Callable[[Terms], Outcome]] = [
        lambda terms: rollout.change_parameters(E, {"THRESHOLD": "0.45"}, "", terms),
        lambda terms: rollout.change_parameters(E, {"FALLBACK": '{"score": 0.2, "label": false}'}, "", terms),
        lambda terms: rollout.change_parameters(E, {"ACTIVE_MODEL": "challenger"}, "", terms),
        lambda terms: rollout.add_rule(E, far, "", terms),
        lambda terms: rollout.remove_rule(E, "near", "", terms),
    ]
    for change in changes:
        with pytest.raises(Refused, match="asks for a diff") as refused:
            change(Terms())
        line = (refused.value.next or "").partition("; then")[0]
        if ".cel: " in line:
            (tmp_path / "far.cel").write_text(far.when)
            line = line.partition(": ")[2].replace("far.cel", str(tmp_path / "far.cel"))
        found = run(*shlex.split(line)[2:], *DAY)
        outcome = change(Terms(diff=digest(encode(found))))
        assert outcome.proposal is not None
        assert (outcome.route.diff, outcome.route.risk) == (digest(encode(found)), outcome.proposal.route.risk)
        Path(outcome.proposal.file).unlink()
