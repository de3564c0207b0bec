"""MLflow's scoring paths and Amazon's own client, at gateway and model server; rules in force on the way."""

from __future__ import annotations

import json
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from tests.house import INPUTS, House, body, free_port, obey, rows, running, trail

from interlock.core.ids import uuid7_text
from interlock.model.columns import to_lists
from interlock.predlog.record import Prediction
from interlock.predlog.rows import prediction_tables
from interlock.registry.routes import Parameters, Rule

INFER = "/v2/models/flight-delay/infer"
NAMES = [spec.name for spec in INPUTS]


def csv(count: int) -> str:
    table = zip(*to_lists(INPUTS, rows(count)), strict=True)
    lines = [["" if value is None else str(value) for value in row] for row in table]
    return "\n".join(",".join(line) for line in [NAMES, *lines])


def last(house: House) -> Prediction:
    found = (one for one in trail(house.project.journals) if isinstance(one, Prediction) and one.role == "live")
    return max(found, key=lambda one: one.prediction_id)  # of whichever gateway: others restart it


@pytest.fixture
def runtime(champion: House) -> Any:
    return boto3.client(
        "sagemaker-runtime",
        endpoint_url=champion.url,
        region_name="eu-central-1",
        aws_access_key_id="none",
        aws_secret_access_key="none",
        config=Config(retries={"max_attempts": 0}),
    )


def test_amazons_client_asks_as_it_does_at_sagemaker(champion: House, runtime: Any) -> None:
    expected = champion.client.post(champion.url + INFER, json=body(3)).json()["outputs"][0]["data"]
    answer = runtime.invoke_endpoint(
        EndpointName="flight-delay", Body=csv(3), ContentType="text/csv", InferenceId="mine"
    )
    assert [one["score"] for one in json.loads(answer["Body"].read())["predictions"]] == expected
    assert (answer["InvokedProductionVariant"], answer["ContentType"]) == ("champion", "application/json")
    assert last(champion).request_id == "mine"
    with pytest.raises(ClientError) as refused:
        runtime.invoke_endpoint(EndpointName="flight-delay", Body="a,b\n1,2", ContentType="text/csv")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    arms = {"champion": (champion.packages_made[0], 10_000)}
    obey(champion, champion.route(arms, allow_version_pin=True).revision)
    wanted = {"EndpointName": "flight-delay", "Body": csv(1), "ContentType": "text/csv"}
    assert runtime.invoke_endpoint(**wanted, TargetVariant="champion")["InvokedProductionVariant"] == "champion"
    assert last(champion).experiment == ""
    with pytest.raises(ClientError):
        runtime.invoke_endpoint(**wanted, TargetVariant="nobody")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no header"),
        ("distance,temp\n1", "list of 2 values"),
        ("distance,distance\n1,1", "came twice"),
        (csv(1).replace("distance", "far"), "'far' is unknown"),
        (csv(1).split("\n")[0], "at least one row"),
        (csv(1).replace("\n", "\nx"), "'distance': expected FP64"),
        ('a,"b\n', "not valid CSV"),
    ],
)
def test_bad_csv_is_one_clear_400(champion: House, text: str, says: str) -> None:
    answer = champion.client.post(
        f"{champion.url}/invocations", content=text, headers={"content-type": "text/csv; charset=utf-8"}
    )
    assert answer.status_code == 400
    assert says in answer.json()["error"]
    assert last(champion).outcome == "invalid"


def test_mlflows_paths_at_both_servers(champion: House) -> None:
    found = champion.packages_made[0]
    port = free_port()
    with running(champion.serve(found, 5, "--port", str(port))):
        answers = []
        for url in (champion.url, f"http://127.0.0.1:{port}"):
            assert champion.client.get(f"{url}/ping").status_code == 200
            assert champion.client.get(f"{url}/version").text.count(".") == 2
            headers = {"content-type": "text/csv"}
            answers.append(champion.client.post(f"{url}/invocations", content=csv(4), headers=headers).json())
    assert answers[0] == answers[1]


def test_a_trace_goes_on_through_the_gateway_into_the_log(champion: House) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    given = f"00-{trace}-00f067aa0ba902b7-01"
    answer = champion.client.post(champion.url + INFER, json=body(), headers={"traceparent": given})
    said = answer.headers["traceparent"]
    assert said.startswith(f"00-{trace}-")
    assert (said.endswith("-01"), said != given) == (True, True)
    assert last(champion).traceparent == said
    for broken in ("", "00-0-0-0", f"00-{'0' * 32}-00f067aa0ba902b7-01", f"ff-{trace}-00f067aa0ba902b7-01"):
        answer = champion.client.post(champion.url + INFER, json=body(), headers={"traceparent": broken})
        assert (answer.status_code, "traceparent" in answer.headers) == (200, False)


def test_rules_decide_before_the_model_is_asked(champion: House) -> None:
    found = champion.packages_made[0]
    rules = (
        Rule("far", "input.distance > 1e6", "refuse", reason="beyond the map"),
        Rule("fixed", 'unit == "N1"', "answer", output={"score": 0.125}),
        Rule("away", 'unit == "N2"', "use", arm="challenger"),
        Rule("safe", 'unit == "N3"', "fallback"),
    )
    arms = {"champion": (found, 10_000), "challenger": (found, 0)}
    fixed = Parameters(fallback={"score": 0.5, "label": True})
    obey(champion, champion.route(arms, rules=rules, parameters=fixed).revision)

    def ask(content: dict[str, Any]) -> tuple[httpx.Response, Prediction]:
        answer = champion.client.post(champion.url + INFER, json=content)
        return answer, last(champion)

    far = body(3)
    far["inputs"][0]["data"][2] = 2e6
    answer, kept = ask(far)
    assert (answer.status_code, answer.json()["error"]) == (422, "beyond the map")
    assert (kept.outcome, kept.rules, kept.rows) == ("refused", ["far"], 0)
    schema = next(one for one in trail(champion.project.journals) if getattr(one, "package_digest", "") == found)
    table = prediction_tables([(uuid7_text(), kept)], {found: schema})["predictions_flight_delay"]  # type: ignore[dict-item]
    assert table.num_rows == 1
    answer, kept = ask(body(2, unit_id="N1"))
    assert answer.json()["outputs"][0]["data"] == [0.125, 0.125]
    assert (kept.outcome, kept.reason, kept.rules) == ("fallback", "rule", ["fixed"])
    answer, kept = ask(body(unit_id="N2"))
    assert (answer.headers["x-interlock-arm"], kept.outcome, kept.experiment) == ("challenger", "answered", "")
    answer, kept = ask(body(unit_id="N3"))
    assert (answer.json()["outputs"][0]["data"], kept.reason) == ([0.5], "rule")
    answer, kept = ask(body(unit_id="N4"))
    assert (answer.headers["x-interlock-arm"], kept.rules) == ("champion", [])


def test_the_parameters_in_force_tell_their_origin(champion: House) -> None:
    route = champion.route({"champion": (champion.packages_made[0], 10_000)}, parameters=Parameters(threshold=0.4))
    obey(champion, route.revision)
    found = champion.client.get(f"{champion.url}/v2/models/flight-delay/parameters").json()
    assert found["THRESHOLD"] == {"value": 0.4, "origin": f"route revision {route.revision}"}
