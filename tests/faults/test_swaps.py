"""Hot swaps by the hundred under keep-alive load: no failed request, no answer of another version, no memory kept."""

from __future__ import annotations

import concurrent.futures
import threading
from pathlib import Path

import httpx
import msgspec
import pytest
from tests.house import House, body, running, until

SWAPS = 100


def resident(pid: int) -> int:
    """Resident memory in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


@pytest.mark.long
def test_a_hundred_swaps_lose_no_request_and_keep_no_memory(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    packages = [house.package(1), house.package(2)]
    for one in packages:
        house.approve(one)
    over = threading.Event()
    failed: list[str] = []
    seen: set[str | None] = set()
    before = after = 0

    def load() -> None:
        with httpx.Client(base_url=house.url, timeout=30) as client:
            while not over.is_set():
                answer = client.post("/v2/models/flight-delay/infer", json=body())
                seen.add(answer.headers.get("x-interlock-package-digest"))
                if answer.status_code != 200:
                    failed.append(answer.text)

    def swap(digest: str) -> None:
        revision = house.route({"champion": (digest, 10_000)}).revision

        def swapped() -> bool:
            found = msgspec.json.decode((house.project.gateways / "0.json").read_bytes())["endpoints"]["flight-delay"]
            return found["revision"] == revision and set(found["replicas"].values()) == {digest}

        until(swapped, what=f"revision {revision}")

    gateway = house.gateway()
    house.route({"champion": (packages[0], 10_000)})
    with running(*(house.serve(one) for one in packages), gateway):
        swap(packages[0])
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            loads = [pool.submit(load) for _ in range(4)]
            try:
                for number in range(SWAPS):
                    swap(packages[(number + 1) % 2])
                    if number == SWAPS // 10:
                        before = resident(gateway.child.pid)
                after = resident(gateway.child.pid)
            finally:
                over.set()
            for ended in loads:
                ended.result()
    house.close()
    assert (failed, seen) == ([], set(packages))
    assert after < before * 1.1, f"{before} KiB after ten swaps, {after} KiB after {SWAPS}"
