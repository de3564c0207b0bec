"""The online path by itself: closed and open loop, the gateway beside its model server asked directly, growth, memory.

Everything on: A/B split, parameters, the log before the answer. Medians of interleaved rounds. Needs `wrk`.
    python -m bench.bench_online [--seconds 4] [--rounds 3]
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.open_loop import open_loop
from bench.project import Served, body, served
from bench.report import publish, spread

CLOSED = ((1, 1), (16, 1), (64, 1), (256, 1), (16, 100), (1, 1000))
"""Connections, rows a request."""


def main() -> None:
    """Run and publish."""
    if shutil.which("wrk") is None:
        sys.exit("this benchmark needs wrk: apt-get install wrk")
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows: list[dict[str, Any]] = []
        for gateways in (1, 2):
            with served(Path(folder) / f"house-{gateways}", gateways=gateways) as house:
                rows += closed(house, gateways, options.rounds, options.seconds, Path(folder))
                peak = next(row for row in rows[::-1] if row["load"] == "64 x 1")["requests/s"]["median"]
                rows.append(opened(house, gateways, 0.7 * peak, options.rounds, options.seconds))
                sizes = memory(house)
        publish("online", rows)
        publish("memory", [{"process": name, "MiB": size} for name, size in sizes.items()])


def closed(house: Served, gateways: int, rounds: int, seconds: int, folder: Path) -> list[dict[str, Any]]:
    """Closed loop: every load in turn, round after round."""
    measured: dict[tuple[int, int], list[dict[str, float]]] = {load: [] for load in CLOSED}
    for _ in range(rounds):
        for connections, count in CLOSED:
            measured[connections, count].append(
                load(house.infer, connections, written(body(count), folder / "post.lua"), seconds)
            )
    return [
        {
            "gateways": gateways,
            "load": f"{connections} x {count}",
            "requests/s": spread([run["rate"] for run in runs]),
            "p50 ms": spread([run["p50"] for run in runs]),
            "p99 ms": spread([run["p99"] for run in runs]),
            "errors": 0,
        }
        for (connections, count), runs in measured.items()
    ]


def opened(house: Served, gateways: int, rate: float, rounds: int, seconds: int) -> dict[str, Any]:
    """Open loop: Poisson arrivals at seven tenths of our own peak."""
    runs = [open_loop(house.infer, body(1), rate, seconds, seed) for seed in range(rounds)]
    return {
        "gateways": gateways,
        "load": "open, 70 %",
        "requests/s": spread([run["rate"] for run in runs]),
        "p50 ms": spread([run["p50"] for run in runs]),
        "p99 ms": spread([run["p99"] for run in runs]),
        "errors": sum(run["errors"] for run in runs),
    }


def memory(house: Served) -> dict[str, float]:
    """Resident memory after the load, by process."""
    found = {}
    for name, pid in house.pids().items():
        status = Path(f"/proc/{pid}/status").read_text()
        found[re.sub("-[0-9a-f]{12}-", "-", name)] = int(status.split("VmRSS:")[1].split()[0]) / 1024
    return {**found, "in all": sum(found.values())}


SCRIPT = """
wrk.headers["Content-Type"] = "application/json"
local ready, turn = {}, 0
function init(args)
  for unit = 1, 128 do
    local content = ([==[CONTENT]==]):gsub('"N1"', '"N' .. unit .. '"')
    ready[unit] = wrk.format("POST", nil, nil, content)
  end
end
function request()
  turn = turn % 128 + 1
  return ready[turn]
end
"""


def written(content: str, script: Path) -> Path:
    """wrk's script for a body: requests of 128 units in turn, so that a split is one."""
    script.write_text(SCRIPT.replace("CONTENT", content))
    return script


def load(url: str, connections: int, script: Path, seconds: int) -> dict[str, float]:
    """One run of wrk: rate, requests and latency percentiles in ms; no answer, or one other than 2xx, is an error."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "--latency", "-s", str(script)]
    text = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    if failed := re.search(r"(Non-2xx|Socket errors).*", text):
        raise RuntimeError(failed[0])
    scale = {"us": 1e-3, "ms": 1, "s": 1e3}
    times = re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s)", text)
    rate, requests = re.search(r"Requests/sec:\s+([\d.]+)", text), re.search(r"(\d+) requests in", text)
    return {
        "rate": float(rate[1]) if rate else 0.0,
        "requests": float(requests[1]) if requests else 0.0,
        **{f"p{name}": float(value) * scale[unit] for name, value, unit in times},
    }


if __name__ == "__main__":
    main()
