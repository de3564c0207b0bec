"""What each thing costs that a gateway can have more of: arms, rules, shadows, replicas, endpoints; and what trouble costs.

One running project whose endpoints differ in one thing each, asked in turn, round after round: every figure is a ratio to the
plain endpoint of the same round. Gateway workers are in `bench_online`. Needs `wrk`.
    python -m bench.bench_growth [--seconds 3] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.bench_online import load, written
from bench.open_loop import open_loop
from bench.project import COMMAND, MODEL, Served, body, free_ports, served
from bench.report import publish, spread
from interlock.core.project import Project
from interlock.registry.packages import package_hex

CONNECTIONS = 64
PLAIN = "champion alone"


def main() -> None:
    """Run and publish."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, served(Path(folder) / "house", challenger=False) as house:
        places = variants(house)
        script = written(body(1), Path(folder) / "post.lua")
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in (*places, "ten more endpoints")}
        for _ in range(options.rounds):
            for name, endpoint in places.items():
                runs[name].append(load(infer(house, endpoint), CONNECTIONS, script, options.seconds))
        before = [run["rate"] for run in runs[PLAIN]]
        for number in range(10):
            house.run("deploy", f"{MODEL}:1", "--to", f"more-{number}", "--as", "champion")
        for _ in range(options.rounds):
            runs["ten more endpoints"].append(load(infer(house, MODEL), CONNECTIONS, script, options.seconds))
        rows = [
            {
                "endpoint": name,
                "requests/s": spread([run["rate"] for run in found]),
                "against the plain one": statistics.median(
                    run["rate"] / plain for run, plain in zip(found, before, strict=True)
                ),
                "p99 ms": spread([run["p99"] for run in found]),
            }
            for name, found in runs.items()
        ]
        publish("growth", rows)
        publish("trouble", [*alone(house, options.rounds, options.seconds), *trouble(house, options.seconds)])


def infer(house: Served, endpoint: str) -> str:
    """Where an endpoint is asked."""
    return f"{house.url}/v2/models/{endpoint}/infer"


def variants(house: Served) -> dict[str, str]:
    """Endpoints that have more of one thing than the plain one has."""
    house.train(1)
    house.train(2)
    house.train(3)

    def deploy(version: int, endpoint: str, arm: str, *more: str) -> None:
        house.run("deploy", f"{MODEL}:{version}", "--to", endpoint, "--as", arm, *more)

    deploy(1, "arms", "champion")
    for version in (2, 3, 4):
        arm = "challenger" if version == 2 else f"challenger-{version - 1}"
        deploy(version, "arms", arm, "--weight", "25%")
    for endpoint, count in (("rules", 1), ("more-rules", 10)):
        deploy(1, endpoint, "champion")
        for number in range(count):
            when = f"input.x{number} > 1000.0 && input.x{number + 1} < -1000.0"
            house.run(
                "rules", endpoint, "add", f"rule-{number}", "--when", when, "--then", "refuse", "--reason", "never"
            )
    deploy(1, "shadowed", "champion")
    deploy(2, "shadowed", "shadow")
    deploy(1, "replicas", "champion", "--replicas", "2")
    return {
        PLAIN: MODEL, "four arms": "arms", "one rule": "rules", "ten rules": "more-rules", "a shadow": "shadowed",
        "two replicas": "replicas",
    }  # fmt: skip


def alone(house: Served, rounds: int, seconds: int) -> Iterator[dict[str, Any]]:
    """One request at a time, and an open loop at seven tenths of what the slower one bears: the gateway against its server."""
    with direct(house) as url:
        runs: dict[str, list[dict[str, float]]] = {"the model server itself": [], "through the gateway": []}
        opened: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
        places = dict(zip(runs, (url, infer(house, MODEL)), strict=True))
        for turn in range(rounds):
            for name, place in places.items():
                runs[name].append(open_loop(place, body(1), 100, seconds, turn))
            peak = min(open_loop(place, body(1), 20_000, seconds, turn)["rate"] for place in places.values())
            for name, place in places.items():
                opened[name].append(open_loop(place, body(1), 0.7 * peak, seconds, turn))
        for what, found in (("100 a second", runs), ("70 % of the peak", opened)):
            for name, each in found.items():
                yield line(f"{name}, {what}", each)


def trouble(house: Served, seconds: int) -> Iterator[dict[str, Any]]:
    """An open loop while a shadow hangs, and while one of two replicas does."""
    digests = {row["version"]: row["package_digest"] for row in house.run("versions", "list")["items"]}
    for endpoint, version, number, what in (
        ("shadowed", 2, "s1", "the shadow is stopped"),
        ("replicas", 1, "2", "one of two replicas is stopped"),
    ):
        rate = 0.5 * open_loop(infer(house, endpoint), body(1), 20_000, seconds)["rate"]
        yield line(f"before {what}", [open_loop(infer(house, endpoint), body(1), rate, seconds)])
        name = f"model-server-{package_hex(digests[version])[:12]}-{number}"
        pid = house.pids()[name]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield line(what, [open_loop(infer(house, endpoint), body(1), rate, 2 * seconds)])
        finally:
            os.kill(pid, signal.SIGCONT)


def line(what: str, runs: list[dict[str, float]]) -> dict[str, Any]:
    """A row of the table."""
    return {
        "load": what,
        "requests/s": spread([run["rate"] for run in runs]),
        "p50 ms": spread([run["p50"] for run in runs]),
        "p99 ms": spread([run["p99"] for run in runs]),
        "errors": sum(run["errors"] for run in runs),
    }


@contextmanager
def direct(house: Served) -> Iterator[str]:
    """A model server of version 1 on a port of its own; where it is asked."""
    project = Project(house.root)
    digest = next(row for row in house.run("versions", "list")["items"] if row["version"] == 1)["package_digest"]
    (port,) = free_ports(1)
    command = (
        *COMMAND, "model-server", "--package", project.packages / package_hex(digest), "--approval",
        project.approvals / package_hex(digest), "--trust", project.trust, "--root", project.root_fingerprint(), "--port", port,
    )  # fmt: skip
    server = subprocess.Popen(
        list(map(str, command)), env=house.environment, cwd=house.root, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        while "ready" not in server.stdout.readline():
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}/v2/models/{MODEL}/infer"
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
