"""A full disk under the journal: refused before ENOSPC, said so, recovered by itself, nothing half-written."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.house import House, body, obey, running, trail, until

pytestmark = pytest.mark.faults
INFER = "/v2/models/flight-delay/infer"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A house whose journals lie on a file system of 8 MiB."""
    made = House(tmp_path / "house")
    made.project.journals.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(made.project.journals)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("a small file system can only be mounted by root")
    made.packages_made = [made.package(1)]
    made.approve(made.packages_made[0])
    made.route({"champion": (made.packages_made[0], 10_000)})
    yield made
    made.close()
    subprocess.run(["umount", str(made.project.journals)], check=True)


def test_refuses_says_so_and_recovers(house: House) -> None:
    filler = house.project.journals / "somebody-elses.file"
    with running(house.serve(house.packages_made[0]), house.gateway()):
        obey(house, 1)
        url = house.url + INFER
        assert house.client.post(url, json=body()).status_code == 200
        with filler.open("wb") as file:
            file.write(b"\0" * (7 << 20) + b"\0" * (200 << 10))
        refused = until(lambda: (a := house.client.post(url, json=body())).status_code == 503 and a, what="a refusal")
        assert "disk under the prediction log" in refused.json()["error"]
        assert "x-interlock-prediction-id" not in refused.headers
        feedback = f"{house.url}/endpoints/flight-delay/feedback"
        assert house.client.post(feedback, json={"prediction_id": "x", "label": 1}).status_code == 503
        filler.unlink()
        until(lambda: house.client.post(url, json=body()).status_code == 200, what="recovery")
    seqs = [record.seq for record in trail(house.project.journals) if hasattr(record, "seq")]
    assert seqs == list(range(1, len(seqs) + 1))
