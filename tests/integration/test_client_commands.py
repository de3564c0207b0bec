"""predict, feedback load, predictions, explain and reconcile against a real gateway, model server and recorder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.house import House, body, running, until

from interlock.cli import run
from interlock.core.clock import SystemClock, iso, parse_time
from interlock.core.errors import Conflict
from interlock.core.ids import uuid7_text
from interlock.evaluation.rerun import rerun
from interlock.model.package import read_manifest
from interlock.registry.gateways import read_live
from interlock.registry.packages import PackageStore
from interlock.store.database import Database
from interlock.warehouse.ducklake import open_warehouse

ROW = {"distance": 700.0, "temp": None, "stops": 1, "carrier": "UA", "at": "2026-01-01T08:00:00-05:00"}
Ask = Callable[..., Any]


def founded(root: Path) -> tuple[House, str]:
    """A project whose endpoint has a champion, and the champion's package."""
    made = House(root)
    Database(made.project.database, create=True).close()
    open_warehouse(made.project.warehouse, create=True).close()
    package = made.package()
    made.approve(package)
    made.route({"champion": (package, 10_000)})
    return made, package


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """An endpoint with a champion, everything running."""
    made, package = founded(tmp_path_factory.mktemp("house") / "project")
    with made.project.config.open("a") as config:
        config.write("[endpoint]\nfeedback_days = 2\n")
    with running(made.serve(package), made.gateway(), made.recorder()):
        until(lambda: reached(made), what="the gateway reaches the champion")
        yield made
    made.close()


def reached(house: House) -> bool:
    served = [one.endpoints.get("flight-delay") for one in read_live(house.project.gateways)]
    return any(one is not None and one.arms["champion"] > 0 for one in served)


@pytest.fixture
def ask(house: House, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Type a command with --json; its document. `code` is the exit code that it must have."""

    def typed(*words: str, code: int = 0) -> Any:
        assert run([*words, "--json", "--project", str(house.project.root)]) == code
        return msgspec.json.decode(capsys.readouterr().out)

    return typed


def predicted(ask: Ask, unit: str = "N17", **changes: Any) -> Any:
    row = msgspec.json.encode({**ROW, **changes}).decode()
    return ask("predict", "flight-delay", "--json-row", row, "--unit", unit)


def test_an_answer_is_explained_with_everything_behind_it(ask: Ask, house: House) -> None:
    asked = predicted(ask)
    told = ask("explain", asked["prediction_id"])
    (row,) = told["rows"]
    assert row["inputs"] == {**ROW, "at": "2026-01-01T13:00:00Z"}
    assert row["outputs"] == asked["predictions"][0]
    assert (row["label"], row["label_delay_s"], row["outcomes"]) == (None, None, {})
    assert (told["unit_id"], told["unit_source"], told["arm"], told["outcome"]) == (
        "N17",
        "client",
        "champion",
        "answered",
    )
    assert told["assignment"]["salt"] == "salt"
    assert told["assignment"]["ranges"][0][0] <= told["assignment"]["bucket"] < told["assignment"]["ranges"][0][1]
    assert (told["route"]["revision"], told["route"]["author"], told["route"]["parameters"]["THRESHOLD"]) == (
        1,
        "olga",
        0.5,
    )
    assert (told["approval"]["approver"], told["lineage"]["author"]) == ("rob", "ann")
    assert told["lineage"]["sql"] == "select 1"


def test_an_answer_is_given_again_from_the_stored_package(ask: Ask, house: House) -> None:
    told = ask("explain", predicted(ask)["prediction_id"], "--rerun")
    assert (told["rerun"]["reproduced"], told["rerun"]["rows"], told["rerun"]["differences"]) == (True, 1, [])
    package = PackageStore(house.project.packages).find(told["package_digest"])
    manifest, inputs, outputs = (
        read_manifest(package, told["package_digest"]),
        told["rows"][0]["inputs"],
        told["rows"][0]["outputs"],
    )
    inputs["at"] = parse_time(inputs["at"])
    score = outputs["score"] * (1 + 1e-6)
    other = rerun(package, manifest, [inputs], [{**outputs, "score": score}], 0.0 if not outputs["label"] else 1.1)
    assert [(one.row, one.output, one.logged) for one in other.differences] == [
        (0, "score", score),
        (0, "label", outputs["label"]),
    ]
    with pytest.raises(Conflict, match="distance of this prediction was not logged"):
        rerun(package, manifest, [inputs | {"distance": None}], [outputs], 0.5)


def test_a_request_that_was_refused_is_explained_too(ask: Ask) -> None:
    error = ask("predict", "flight-delay", "--json-row", '{"distance": 1}', code=1)["error"]
    assert error["code"] == "invalid_request"
    assert "'temp' is missing" in error["message"]
    told = ask(*error["next"].split()[1:])
    assert told["outcome"] == "invalid"
    assert "'temp' is missing" in told["reason"]
    assert told["rows"][0]["outputs"] == {"score": None, "label": None}
    assert "no model gave an answer" in ask("explain", told["prediction_id"], "--rerun", code=1)["error"]["message"]


def test_labels_come_back_from_csv_and_json_lines(ask: Ask, tmp_path: Path) -> None:
    first, second = predicted(ask), predicted(ask, distance=2800.0)
    (tmp_path / "labels.csv").write_text(
        "prediction_id,row,label,at,delay_minutes\n"
        f"{first['prediction_id']},0,No,2030-01-01T00:00:00Z,\n"
        f"{second['prediction_id']},,true,2030-01-02T00:00:00+01:00,17.5\n"
    )
    assert ask("feedback", "load", str(tmp_path / "labels.csv"), "--to", "flight-delay")["accepted"] == 2
    later = {"prediction_id": first["prediction_id"], "label": True, "at": "2030-01-03T00:00:00Z"}
    (tmp_path / "more.jsonl").write_bytes(msgspec.json.encode(later) + b"\n\n")
    assert ask("feedback", "load", str(tmp_path / "more.jsonl"), "--to", "flight-delay")["accepted"] == 1
    assert ask("reconcile", "flight-delay", "--wait", "20")["backlog"]["segments"] == 0
    rows = [ask("explain", one["prediction_id"])["rows"][0] for one in (first, second)]
    assert [row["label"] for row in rows] == [True, True]
    assert rows[0]["label_at"] == "2030-01-03T00:00:00Z"
    assert rows[1]["outcomes"] == {"delay_minutes": 17.5}


def test_labels_come_back_by_unit(ask: Ask, house: House, tmp_path: Path) -> None:
    """From before the prediction, by HTTP and from files; the latest counts, whichever way it was said."""
    soon, late = (iso(SystemClock().now() + timedelta(days=days)) for days in (1, 3))

    def told(*items: dict[str, Any]) -> None:
        url = f"{house.url}/endpoints/flight-delay/feedback"
        assert house.client.post(url, json=list(items)).json() == {"accepted": len(items)}

    told({"unit_id": "U1", "at": soon, "label": True}, {"unit_id": "U2", "at": late, "label": True})
    first = predicted(ask, "U1")
    until(lambda: explained(ask, first)["label"] is True, what="the label that came first finds its prediction")
    assert orphans(house) == ["U2"]
    last, other, old = predicted(ask, "U1"), predicted(ask, "U2"), predicted(ask, "U3")
    told({"prediction_id": last["prediction_id"], "label": True}, {"unit_id": "U1", "at": soon, "label": False})
    (tmp_path / "wide.csv").write_text(f"unit_id,at,label,delay_minutes\nU2,{soon},no,3\nU3,{late},no,3\n")
    assert ask("feedback", "load", str(tmp_path / "wide.csv"), "--to", "flight-delay")["accepted"] == 2
    (tmp_path / "long.csv").write_text(
        f"prediction_id,unit_id,at,name,value\n,U2,{soon},label,yes\n{old['prediction_id']},U3,{soon},cost,2\n"
    )
    assert ask("feedback", "load", str(tmp_path / "long.csv"), "--to", "flight-delay")["accepted"] == 2
    until(lambda: explained(ask, old)["outcomes"] == {"cost": 2.0}, what="everything is recorded")
    until(lambda: explained(ask, other)["label"] is True, what="and attributed")
    assert [explained(ask, one)["label"] for one in (first, last, old)] == [None, False, None]
    assert explained(ask, other)["outcomes"] == {"delay_minutes": 3.0}
    assert orphans(house) == ["U2", "U3", "U3"]


def explained(ask: Ask, asked: Any) -> Any:
    return ask("explain", asked["prediction_id"])["rows"][0]


def orphans(house: House) -> list[str]:
    """The units of feedback that the recorder found no prediction for."""
    with closing(open_warehouse(house.project.warehouse, read_only=True)) as warehouse:
        sql = "select unit_id from interlock.feedback_flight_delay where orphan and ambiguous is not null order by all"
        return [row["unit_id"] for row in warehouse.query(sql).to_pylist()]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.csv", "id,label\n1,true\n", "line 2: expected prediction_id or unit_id"),
        ("a.csv", "unit_id,label\nN1,true\n", "after 0 accepted items: item 0: unit_id needs at"),
        ("a.csv", "unit_id,at,name,value\nN1,2030-01-01T00:00:00Z,,1\n", "line 2: expected a name and a value"),
        ("a.csv", "unit_id,at,label\nN1,2030-01-01T00:00:00Z,true,1\n", "line 2: expected prediction_id or unit_id"),
        (
            "a.csv",
            "prediction_id,label\n01a20445-6d37-7000-b803-f170194e4195,maybe\n",
            "line 2: the label 'maybe' is no BOOL",
        ),
        ("a.csv", "prediction_id,label\nnonsense,true\n", "after 0 accepted items: item 0: prediction_id"),
        ("a.jsonl", "{}\n[1]\n", "line 2: Expected"),
    ],
)
def test_feedback_that_cannot_be_read_names_its_line(ask: Ask, tmp_path: Path, name: str, text: str, why: str) -> None:
    (tmp_path / name).write_text(text)
    assert why in ask("feedback", "load", str(tmp_path / name), "--to", "flight-delay", code=1)["error"]["message"]


def test_the_log_is_searched_and_proved(ask: Ask, tmp_path: Path) -> None:
    asked = [predicted(ask, distance=float(100 + i)) for i in range(3)]
    held, stranger = [one["prediction_id"] for one in asked], uuid7_text()
    (tmp_path / "ids").write_text("".join(f'{{"prediction_id": "{one}", "rows": 1}}\n' for one in held))
    proof = ask("reconcile", "flight-delay", "--ids", str(tmp_path / "ids"), "--wait", "20")
    assert (proof["whole"], proof["checked"], proof["missing"], proof["lost"]) == (True, 3, 0, 0)
    (tmp_path / "ids").write_text(f"{held[0]}\n{stranger}\n")
    proof = ask("reconcile", "flight-delay", "--ids", str(tmp_path / "ids"), code=1)
    assert (proof["whole"], proof["missing_ids"]) == (False, [stranger])
    found = ask(
        "predictions", "flight-delay", "--since", "1h", "--where", "in_distance between 101 and 102", "--limit", "1"
    )
    assert [row["prediction_id"] for row in found["items"]] == [held[2]]
    assert ask("predictions", "flight-delay", "--since", "2100-01-01T00:00:00Z")["items"] == []


def test_the_proof_waits_for_the_log_of_a_new_endpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, package = founded(tmp_path / "project")
    words = ["reconcile", "flight-delay", "--json", "--project", str(made.project.root), "--wait"]
    with running(made.serve(package), made.gateway()), ExitStack() as late:
        until(lambda: reached(made), what="the gateway reaches the champion")
        assert httpx.post(f"{made.url}/v2/models/flight-delay/infer", json=body(2)).status_code == 200
        assert run([*words, "0"]) == 1
        assert msgspec.json.decode(capsys.readouterr().out)["error"]["code"] == "not_found"
        starts = threading.Timer(0.2, late.enter_context, [running(made.recorder())])
        starts.start()
        assert run([*words, "20"]) == 0
        starts.join()
    assert msgspec.json.decode(capsys.readouterr().out)["predictions"] == 1
    made.close()


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [
        (("explain", "not-an-id"), "usage", 2),
        (("explain", "01a20445-6d37-7000-b803-f170194e4195"), "not_found", 1),
        (("predictions", "nothing"), "not_found", 1),
        (("predictions", "flight-delay", "--since", "yesterday"), "usage", 2),
        (("predictions", "flight-delay", "--where", "no_such_column > 1"), "invalid_data", 1),
        (
            ("predictions", "flight-delay", "--where", "true); drop table interlock.predictions_flight_delay; --"),
            "invalid_data",
            1,
        ),
        (("reconcile", "flight-delay", "--ids", "no-such-file"), "usage", 2),
        (("predict", "nothing", "--json-row", "{}"), "not_found", 1),
        (("predict", "flight-delay"), "usage", 2),
        (("predict", "flight-delay", "--json-row", "[1]"), "usage", 2),
    ],
)
def test_what_cannot_be_answered_says_why(ask: Ask, words: tuple[str, ...], code: str, exit_code: int) -> None:
    assert ask(*words, code=exit_code)["error"]["code"] == code
