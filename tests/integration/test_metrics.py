"""`/metrics` as a real Prometheus reads it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.house import House, body, free_port, until

INFER = "/v2/models/flight-delay/infer"


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Debian's package prometheus: .ci/run installs it")
def test_a_real_prometheus_scrapes_the_gateway(champion: House, tmp_path: Path) -> None:
    for _ in range(5):
        champion.client.post(champion.url + INFER, json=body(2))
    champion.client.post(champion.url + INFER, content=b"{")
    config = tmp_path / "prometheus.yml"
    target = champion.url.removeprefix("http://")
    config.write_text(
        "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
        f"scrape_configs: [{{job_name: gateway, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    port = free_port()
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)

    def query(what: str) -> list[dict[str, Any]]:
        try:
            answer = champion.client.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": what})
        except httpx.TransportError:
            return []
        found: list[dict[str, Any]] = answer.json()["data"]["result"] if answer.status_code == 200 else []
        return found

    try:
        until(lambda: [one for one in query("up") if one["value"][1] == "1"], what="the first scrape")

        def value(what: str) -> float:
            return sum(float(one["value"][1]) for one in query(what))

        answered = 'interlock_requests_total{endpoint="flight-delay",outcome="answered"}'
        until(lambda: value(answered) >= 5, what="the counter")
        ok = 'http_server_request_duration_seconds_count{http_route="/v2/models/{model}/infer",http_response_status_code='
        assert value(ok + '"200"}') >= 5
        assert value(ok + '"400"}') >= 1
        assert value('model_infer_request_success_total{model="flight-delay"}') >= 5
        assert value('model_infer_request_failure_total{model="flight-delay"}') >= 1
        assert value("sum(interlock_batch_rows_sum)") >= 10
        assert value("interlock_replica_live") >= 1
        assert value("interlock_route_revision") >= 1
        assert value("interlock_journal_bytes_total") > 0
        for name in (
            "http_server_active_requests",
            "interlock_replica_queue_requests",
            "interlock_replica_ejections_total",
        ):
            assert query(name), name
    finally:
        server.terminate()
        server.wait()
