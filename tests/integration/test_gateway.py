"""The gateway in front of real model servers, over real sockets."""

from __future__ import annotations

import concurrent.futures
import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.house import INPUTS, House, body, free_port, obey, rows, running, trail, until

from interlock.core.assignment import bucket
from interlock.gateway.rest import SERVED
from interlock.model.columns import to_lists
from interlock.model.signature import ROWS
from interlock.predlog.record import Feedbacks, Prediction
from interlock.registry.routes import Parameters, Rule

INFER = "/v2/models/flight-delay/infer"


def post(house: House, content: Any, path: str = INFER, **headers: str) -> httpx.Response:
    data = content if isinstance(content, bytes | str) else json.dumps(content)
    return house.client.post(house.url + path, content=data, headers={"content-type": "application/json", **headers})


def last_prediction(house: House) -> Prediction:
    found = [record for record in trail(house.project.journals) if isinstance(record, Prediction)]
    return max(found, key=lambda record: record.prediction_id)


def test_answer_names_everything_a_client_needs(champion: House) -> None:
    answer = post(champion, body(3, unit_id="N1", event_time="2013-06-01T10:00:00-04:00") | {"id": "mine"})
    assert answer.status_code == 200
    content = answer.json()
    assert content["id"] == "mine"
    assert [output["shape"] for output in content["outputs"]] == [[3], [3]]
    assert content["parameters"]["package_digest"] == champion.packages_made[0]
    assert answer.headers["x-interlock-prediction-id"] == content["parameters"]["prediction_id"]
    kept = last_prediction(champion)
    assert (kept.prediction_id, kept.request_id) == (content["parameters"]["prediction_id"], "mine")
    assert (kept.unit_id, kept.unit_source, kept.experiment, kept.rows) == ("N1", "client", "exp", 3)
    assert kept.event_time == 1_370_095_200_000_000
    assert kept.outputs[0] == content["outputs"][0]["data"]


def test_headers_say_unit_and_time_too(champion: House) -> None:
    at = {"x-interlock-unit": "N2", "x-interlock-event-time": "2013-06-01T00:00:00Z"}
    assert post(champion, body(), **at).status_code == 200
    kept = last_prediction(champion)
    assert (kept.unit_id, kept.event_time) == ("N2", 1_370_044_800_000_000)


def test_without_unit_the_row_stays_out_of_experiments(champion: House) -> None:
    answer = post(champion, body())
    kept = last_prediction(champion)
    assert (kept.unit_id, kept.unit_source, kept.experiment) == (
        answer.headers["x-interlock-prediction-id"],
        "request",
        "",
    )


def test_every_codec_gives_the_same_answer(champion: House) -> None:
    count = 5
    names = [spec.name for spec in INPUTS]
    lists = to_lists(INPUTS, rows(count))
    table = [list(row) for row in zip(*lists, strict=True)]
    records = [dict(zip(names, row, strict=True)) for row in table]
    expected = post(champion, body(count)).json()["outputs"]
    wanted = [
        {"score": score, "label": label} for score, label in zip(expected[0]["data"], expected[1]["data"], strict=True)
    ]
    for content in (
        {"dataframe_split": {"columns": names, "data": table}},
        {"dataframe_records": records},
        {"instances": records},
        {"instances": table},
        {"inputs": dict(zip(names, lists, strict=True))},
    ):
        answer = post(champion, content, "/endpoints/flight-delay/invocations")
        assert answer.json() == {"predictions": wanted}, content
    cells = [["" if value is None else str(value) for value in row] for row in table]
    text = "\n".join(",".join(row) for row in [names, *cells])
    answer = champion.client.post(
        f"{champion.url}/endpoints/flight-delay/invocations", content=text, headers={"content-type": "text/csv"}
    )
    assert answer.json() == {"predictions": wanted}
    nested = body(count)
    for tensor in nested["inputs"]:
        tensor["data"], tensor["shape"] = [[value] for value in tensor["data"]], [count, 1]
    assert post(champion, nested).json()["outputs"] == expected


def changed(count: int = 1, **replace: Any) -> dict[str, Any]:
    content = body(count)
    for tensor in content["inputs"]:
        if tensor["name"] in replace:
            tensor.update(replace[tensor["name"]])
    return content


def without(name: str) -> dict[str, Any]:
    content = body()
    return {"inputs": [tensor for tensor in content["inputs"] if tensor["name"] != name]}


EXTRA = {"name": "extra", "shape": [1], "datatype": "FP64", "data": [1]}
BAD: list[tuple[Any, int, str]] = [
    (b"", 400, "not valid JSON"),
    (b"{", 400, "not valid JSON"),
    (b"[1]", 400, "Inference Protocol"),
    (b'{"inputs": []}', 400, "'distance' is missing"),
    (without("stops"), 400, "'stops' is missing"),
    ({"inputs": [*body()["inputs"], EXTRA]}, 400, "'extra' is unknown"),
    ({"inputs": [*body()["inputs"], body()["inputs"][0]]}, 400, "'distance' came twice"),
    (changed(distance={"datatype": "FP32"}), 400, "'distance': expected datatype FP64, got FP32"),
    (changed(distance={"data": ["far"]}), 400, "'distance': expected FP64"),
    (changed(distance={"data": [None]}), 400, "not null"),
    (changed(distance={"data": [True]}), 400, "'distance'"),
    (changed(stops={"data": [1.5]}), 400, "'stops': expected INT64"),
    (changed(stops={"data": [2**63]}), 400, "'stops'"),
    (changed(carrier={"data": [7]}), 400, "'carrier': expected BYTES"),
    (changed(distance={"shape": [2]}), 400, "'distance': expected 2 values, got 1"),
    (changed(distance={"shape": [1, 2]}), 400, "'distance': expected shape"),
    (changed(distance={"shape": [0], "data": []}), 400, "n ≥ 1"),
    (json.dumps(changed(distance={"data": [float("-inf")]})), 400, "not valid JSON"),
    (json.dumps(body()).replace("218.8", "1e999"), 400, ""),
    (json.dumps(changed(distance={"data": [float("nan")]})), 400, "not valid JSON"),
    (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "nested deeper than 64"),
    (body() | {"outputs": [{"name": "nope"}]}, 400, "'nope'"),
    (body(unit_id="x" * 257), 400, "256 bytes"),
    (body(event_time="yesterday"), 400, "event_time"),
    (body(event_time="2013-06-01T00:00:00"), 400, "offset"),
    (body(event_time="9999-12-31T23:59:59-01:00"), 400, "event_time: expected ISO 8601"),
    (body(event_time="0001-01-01T00:00:00+01:00"), 400, "event_time: expected ISO 8601"),
    (changed(at={"data": [2**63 - 1]}), 400, "'at': expected INT64 (timestamp in the years 1 to 9999, not null), got 92"),
    (changed(at={"data": [253_402_300_800_000_000]}), 400, "'at': expected INT64 (timestamp in the years 1 to 9999"),
    (body(ROWS + 1), 413, f"over {ROWS} rows"),
    (b'{"pad": "' + b"x" * (10 * 1024 * 1024) + b'"}', 413, "10 MiB"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "status", "says"), BAD)
def test_bad_input_is_one_clear_4xx_and_logged(champion: House, content: Any, status: int, says: str) -> None:
    answer = post(champion, content)
    assert answer.status_code == status, answer.text
    assert says in answer.json()["error"]
    kept = last_prediction(champion)
    assert (kept.prediction_id, kept.outcome, kept.rows) == (answer.json()["prediction_id"], "invalid", 0)
    assert answer.headers["x-interlock-outcome"] == "invalid"


@pytest.mark.parametrize("encoding", ["", "identity", "Identity", "GZIP", "x-gzip", "deflate"])
def test_names_of_encodings_are_read_as_their_standard_says(champion: House, encoding: str) -> None:
    content, kind = json.dumps(body()).encode(), encoding.lower()
    packed = gzip.compress(content) if "gzip" in kind else zlib.compress(content) if kind == "deflate" else content
    headers = {"content-encoding": encoding}
    answer = champion.client.post(champion.url + INFER, content=packed, headers=headers)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("path", [INFER, "/endpoints/flight-delay/invocations", "/endpoints/flight-delay/feedback"])
@pytest.mark.parametrize(
    ("encoding", "content", "status", "says"),
    [
        ("br", b"{}", 415, "content encoding 'br'"),
        ("gzip, gzip", b"{}", 415, "send gzip or deflate"),
        ("gzip", b"{}", 400, "not gzip"),
        ("deflate", gzip.compress(b"{}"), 400, "not deflate"),
        ("gzip", gzip.compress(b'{"a": 1}')[:-4], 400, "whole piece"),
        ("gzip", gzip.compress(b"{}") * 2, 400, "whole piece"),
        ("gzip", gzip.compress(b" " * (200 << 20)), 413, "over 10 MiB when it is inflated"),
        ("GZIP", gzip.compress(b"{"), 400, "not valid JSON"),
    ],
    ids=["another encoding", "twice", "plain", "the other one", "cut off", "two pieces", "a bomb", "no JSON in it"],
)
def test_what_cannot_be_inflated_is_one_clear_4xx(
    champion: House, path: str, encoding: str, content: bytes, status: int, says: str
) -> None:
    if path.endswith("invocations") and says == "not valid JSON":
        says = ""
    answer = champion.client.post(champion.url + path, content=content, headers={"content-encoding": encoding})
    assert answer.status_code == status, answer.text
    assert says in answer.json()["error"]
    if not path.endswith("feedback"):
        assert last_prediction(champion).outcome == "invalid"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "exactly one of"),
        ({"instances": [[1]], "inputs": [[1]]}, "exactly one of"),
        ({"dataframe_records": []}, "at least one row"),
        ({"dataframe_split": {"columns": ["a", "a"], "data": []}}, "came twice"),
        ({"dataframe_records": [{"distance": 1}, 3]}, ""),
        ({"instances": [{"distance": 1}]}, "is missing"),
        ({"inputs": {"distance": 3}}, "a list of values"),
    ],
)
def test_bad_scoring_json_is_refused(champion: House, content: Any, says: str) -> None:
    answer = post(champion, content, "/endpoints/flight-delay/invocations")
    assert answer.status_code == 400
    assert says in answer.json()["error"]


def test_other_media_types_are_415_and_unknown_endpoints_404_and_not_logged(champion: House) -> None:
    path = "/endpoints/flight-delay/invocations"
    assert (
        champion.client.post(champion.url + path, content="a,b", headers={"content-type": "text/plain"}).status_code
        == 415
    )
    before = last_prediction(champion).seq
    assert post(champion, body(), "/v2/models/nobody/infer").status_code == 404
    assert post(champion, body(), "/v3").status_code == 404
    assert last_prediction(champion).seq == before


@pytest.mark.parametrize(("path", "allowed"), SERVED.items())
def test_each_path_takes_its_methods_and_says_so_to_others(champion: House, path: str, allowed: str) -> None:
    url = champion.url + path.format(model="flight-delay", version="1", endpoint="flight-delay")
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE"):
        answer = champion.client.request(method, url)
        if method in allowed.split(", "):
            assert answer.status_code != 405
            assert "nothing is served" not in answer.text
        else:
            assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
            assert method == "HEAD" or allowed in answer.json()["error"]


def test_a_request_that_breaks_the_model_does_not_take_its_neighbours_along(champion: House) -> None:
    cursed = changed(distance={"data": [666.0]})
    with httpx.Client(base_url=champion.url) as client, concurrent.futures.ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(client.post, INFER, json=cursed if i % 8 == 3 else body(seed=i)) for i in range(64)]
        codes = [one.result().status_code for one in asked]
    assert [code for i, code in enumerate(codes) if i % 8 == 3] == [500] * 8
    assert {code for i, code in enumerate(codes) if i % 8 != 3} == {200}


def test_units_stick_and_only_the_minimum_moves(served: House) -> None:
    first, second = served.packages_made
    units = [f"N{i}" for i in range(300)]
    arms: list[dict[str, str]] = []
    for ranges in ({"champion": 8000, "challenger": 2000}, {"champion": 5000, "challenger": 5000}):
        found = {"champion": (first, ranges["champion"]), "challenger": (second, ranges["challenger"])}
        obey(served, served.route(found).revision)
        with httpx.Client(base_url=served.url) as client:
            arms.append({u: client.post(INFER, json=body(unit_id=u)).headers["x-interlock-arm"] for u in units})
    for unit in units:
        position = bucket("salt", unit)
        assert arms[0][unit] == ("champion" if position < 8000 else "challenger")
        if arms[0][unit] == "challenger":
            assert arms[1][unit] == "challenger"


def test_parameters_change_live(champion: House) -> None:
    arms = {"champion": (champion.packages_made[0], 10_000)}
    score = post(champion, body()).json()["outputs"][0]["data"][0]
    for threshold, label in ((score, True), (min(1.0, score + 1e-9), False)):
        obey(champion, champion.route(arms, parameters=Parameters(threshold=threshold)).revision)
        assert post(champion, body()).json()["outputs"][1]["data"] == [label]
    off = champion.route(arms, parameters=Parameters(activate=False, fallback={"score": 0.1, "label": False}))
    obey(champion, off.revision)
    answer = post(champion, body(2))
    assert answer.status_code == 200
    assert answer.json()["outputs"][0]["data"] == [0.1, 0.1]
    assert answer.json()["parameters"]["reason"] == "deactivated"
    kept = last_prediction(champion)
    assert (kept.outcome, kept.reason, kept.rows) == ("fallback", "deactivated", 2)
    obey(champion, champion.route(arms, parameters=Parameters(activate=False)).revision)
    assert post(champion, body()).status_code == 503
    assert last_prediction(champion).outcome == "deactivated"


def test_active_model_sends_all_traffic_to_one_arm_outside_experiments(served: House) -> None:
    first, second = served.packages_made
    arms = {"champion": (first, 9000), "challenger": (second, 1000)}
    for wanted in ("challenger", "2", "flight-delay:2"):
        obey(served, served.route(arms, parameters=Parameters(active_model=wanted)).revision)
        answers = [post(served, body(unit_id=f"N{i}")) for i in range(10)]
        assert {answer.headers["x-interlock-arm"] for answer in answers} == {"challenger"}
        assert last_prediction(served).experiment == ""


def test_versions_in_the_path_need_to_be_allowed(served: House) -> None:
    first, second = served.packages_made
    arms = {"champion": (first, 10_000), "challenger": (second, 0)}
    obey(served, served.route(arms).revision)
    path = "/v2/models/flight-delay/versions/2/infer"
    assert post(served, body(), path).status_code == 404
    assert last_prediction(served).outcome == "invalid"
    obey(served, served.route(arms, allow_version_pin=True).revision)
    assert post(served, body(), path).headers["x-interlock-arm"] == "challenger"
    assert post(served, body(), path.replace("/2/", "/9/")).status_code == 404


def test_feedback_goes_through_the_journal(champion: House) -> None:
    asked = post(champion, body()).headers["x-interlock-prediction-id"]
    path = "/endpoints/flight-delay/feedback"
    items = [
        {"prediction_id": asked, "label": True, "at": "2013-06-01T12:00:00Z", "outcomes": {"minutes": 23}},
        {"prediction_id": asked, "row": 1, "label": "late"},
    ]
    answer = post(champion, items, path)
    assert (answer.status_code, answer.json()) == (202, {"accepted": 2})
    kept = [record for record in trail(champion.project.journals) if isinstance(record, Feedbacks)][-1].items
    assert [(one.name, one.row, one.value_num, one.value_text) for one in kept] == [
        ("minutes", 0, 23.0, None), ("label", 0, 1.0, None), ("label", 1, None, "late"),
    ]  # fmt: skip
    unknown = {"prediction_id": asked, "labels": 1}
    never = [{**items[0], "at": at} for at in ("0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00")]
    huge = [{**items[0], "label": 10**400}, {**items[0], "outcomes": {"minutes": 10**400}}]
    bad: list[Any] = [{"prediction_id": "x", "label": 1}, {"label": 1}, [], {"prediction_id": asked}, unknown]
    bad += [*never, *huge, {"unit_id": "N1", "label": 1}]
    for wrong in bad:
        assert post(champion, wrong, path).status_code == 400, wrong
    assert post(champion, items, "/endpoints/nobody/feedback").status_code == 404


def test_health_and_metadata(champion: House) -> None:
    def get(path: str) -> httpx.Response:
        return champion.client.get(champion.url + path)

    assert get("/livez").status_code == get("/v2/health/live").status_code == get("/v2").status_code == 200
    assert get("/readyz").json() == {"ready": True, "reason": ""}
    described = get("/v2/models/flight-delay").json()
    assert [(one["name"], one["datatype"]) for one in described["inputs"]] == [(i.name, i.datatype) for i in INPUTS]
    assert [one["name"] for one in described["outputs"]] == ["score", "label"]
    assert 'interlock_requests_total{endpoint="flight-delay"' in get("/metrics").text
    assert get("/v2/models/nobody/ready").status_code == 404


def test_unseen_categories_are_answered_and_counted(champion: House) -> None:
    line = 'interlock_unseen_categories_total{endpoint="flight-delay",input="carrier"} '
    text = champion.client.get(f"{champion.url}/metrics").text
    before = int(text.split(line)[1].split("\n")[0]) if line in text else 0
    assert post(champion, changed(2, carrier={"data": ["ZZ", "UA"]})).status_code == 200
    assert f"{line}{before + 1}\n" in champion.client.get(f"{champion.url}/metrics").text


def test_routes_that_may_not_serve_are_refused_and_the_old_one_stays(served: House) -> None:
    arms = {"champion": (served.packages_made[0], 10_000)}
    good = served.route(arms)
    obey(served, good.revision)
    folder = served.project.routes / "flight-delay"
    status = served.project.gateways / "0.json"

    def error() -> str:
        return str(msgspec.json.decode(status.read_bytes())["endpoints"]["flight-delay"]["error"] or "")

    bad = served.route(arms, by="rob")
    until(lambda: "role operator" in error(), what="refusal of a reviewer's route")
    assert post(served, body()).status_code == 200
    assert last_prediction(served).route_revision == good.revision
    unapproved = served.package(9)
    served.route({"champion": (unapproved, 10_000)})
    until(lambda: "no approval" in error(), what="refusal of an unapproved package")
    path = folder / f"{good.revision + 3}.dsse.json"
    path.write_bytes((folder / f"{good.revision}.dsse.json").read_bytes())
    (folder / "current").write_text(f"{good.revision + 3}\n")
    until(lambda: "says it is" in error(), what="refusal of a replayed route")
    path.unlink()
    (folder / "current").write_text(f"{good.revision - 1}\n")
    until(lambda: "older than" in error(), what="refusal of an older revision")
    assert last_prediction(served).route_revision == good.revision
    (folder / "current").write_text(f"{bad.revision + 1}\n")


def test_environment_pins_a_parameter(champion: House) -> None:
    port = free_port()
    other = champion.gateway(
        1, INTERLOCK_PARAM__FLIGHT_DELAY__THRESHOLD="0", THRESHOLD="0.9", INTERLOCK_SERVE__GATEWAY_PORT=str(port)
    )
    try:
        other.ready()
        url = f"http://127.0.0.1:{port}"
        until(lambda: champion.client.get(f"{url}/readyz").status_code == 200)
        answer = champion.client.post(url + INFER, json=body(20))
        assert answer.json()["outputs"][1]["data"] == [True] * 20
        status = msgspec.json.decode((champion.project.gateways / "1.json").read_bytes())
        pinned = status["endpoints"]["flight-delay"]["pinned"]
        assert pinned == {"THRESHOLD": "INTERLOCK_PARAM__FLIGHT_DELAY__THRESHOLD"}
    finally:
        other.stop()


def test_bodies_of_refused_requests_are_let_go(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    found = house.package()
    house.approve(found)
    revision = house.route({"champion": (found, 10_000)}).revision
    gateway = house.gateway()

    def resident() -> int:
        return int(Path(f"/proc/{gateway.child.pid}/status").read_text().split("VmRSS:")[1].split()[0]) // 1024

    with running(house.serve(found), gateway):
        obey(house, revision)
        bodies = (b"[" + b" " * (8 << 20), json.dumps(changed(distance={"data": ["x" * (8 << 20)]})).encode())
        for content in bodies:
            assert house.client.post(house.url + INFER, content=content).status_code == 400
        before = resident()
        for _ in range(20):
            for content in bodies:
                assert house.client.post(house.url + INFER, content=content).status_code == 400
        assert resident() - before < 100, f"{before} MiB before, {resident()} MiB after 320 MiB of refused bodies"
    house.close()


def test_a_request_that_the_rules_cannot_decide_in_time_is_not_answered_by_the_model(served: House) -> None:
    slow = Rule("slow", 'input.carrier.matches("(a|b|c)*[A-Z]{20,40}x")', "refuse", "no such carrier")
    arms = {"champion": (served.packages_made[0], 10_000)}
    obey(served, served.route(arms, rules=(slow,)).revision)
    assert post(served, body(3)).status_code == 200
    answer = post(served, body(20_000))
    assert (answer.status_code, answer.headers["x-interlock-outcome"]) == (504, "timeout")
    assert "of 20000 rows: send fewer rows" in answer.json()["error"]
    kept = last_prediction(served)
    assert (kept.outcome, kept.reason, kept.outputs) == ("timeout", answer.json()["error"], [])
    fallback = Parameters(fallback={"score": 0.4, "label": False})
    obey(served, served.route(arms, rules=(slow,), parameters=fallback).revision)
    answer = post(served, body(20_000))
    assert (answer.status_code, answer.json()["outputs"][0]["data"]) == (200, [0.4] * 20_000)
    kept = last_prediction(served)
    assert (kept.outcome, kept.reason, kept.rows) == ("fallback", "timeout", 20_000)
