"""What each thing costs that a gateway can have more of: arms, rules, shadows, replicas, endpoints; and what trouble costs.

One running project whose endpoints differ in one thing each, asked in turn, round after round. Ratios are those to the plain
endpoint in the same round: of requests a second, and of the CPU time of all our processes, which says more on a shared machine.
Gateway workers are in `bench_online`. Needs `wrk`.
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
from bench.bench_peers import usage
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
        for turn in range(options.rounds):
            names = list(places)
            for name in names[turn:] + names[:turn]:  # nobody is always the first
                runs[name].append(asked(house, places[name], script, options.seconds))
        for number in range(10):
            house.run("deploy", f"{MODEL}:1", "--to", f"more-{number}", "--as", "champion")
        for _ in range(options.rounds):
            runs["ten more endpoints"].append(asked(house, MODEL, script, options.seconds))
        rows = [
            {
                "endpoint": name,
                "requests/s": spread([run["rate"] for run in found]),
                "to the plain one": against(found, runs[PLAIN], "rate"),
                "CPU us a request": spread([run["cpu"] for run in found]),
                "to the plain one's": against(found, runs[PLAIN], "cpu"),
                "p99 ms": spread([run["p99"] for run in found]),
            }
            for name, found in runs.items()
        ]
        publish("growth", rows)
        lines = [
            *alone(house, options.rounds, options.seconds, script),
            *trouble(house, options.rounds, options.seconds, script),
        ]
        publish("trouble", lines)


def settled() -> None:
    """The recorder still works on what the load before has left behind."""
    time.sleep(2)


def asked(house: Served, endpoint: str, script: Path, seconds: int) -> dict[str, float]:
    """One load, and the CPU time that all our processes spend on a request of it, logging too."""
    settled()
    before = sum(usage(pid)[0] for pid in house.pids().values())
    run = load(infer(house, endpoint), CONNECTIONS, script, seconds)
    time.sleep(1)
    after = sum(usage(pid)[0] for pid in house.pids().values())
    return run | {"cpu": 1e6 * (after - before) / run["requests"]}


def against(found: list[dict[str, float]], plain: list[dict[str, float]], key: str) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(run[key] / other[key] for run, other in zip(found, plain, strict=True))


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


def alone(house: Served, rounds: int, seconds: int, script: Path) -> Iterator[dict[str, Any]]:
    """The gateway against its model server asked directly: one connection, and open loops at shares of the gateway's peak."""
    loads = ("one connection", "open, 25 % of the peak", "open, 70 % of the peak")
    with direct(house) as url:
        places = {"the model server itself": url, "through the gateway": infer(house, MODEL)}
        runs: dict[tuple[str, str], list[dict[str, float]]] = {(one, name): [] for one in loads for name in places}
        for turn in range(rounds):
            peak = load(places["through the gateway"], CONNECTIONS, script, seconds)["rate"]
            for name, place in places.items():
                settled()
                runs[loads[0], name].append(load(place, 1, script, seconds) | {"errors": 0})
                for one, share in zip(loads[1:], (0.25, 0.7), strict=True):
                    settled()
                    runs[one, name].append(open_loop(place, body(1), share * peak, seconds, turn))
        for (one, name), found in runs.items():
            yield line(f"{name}, {one}", found)


def trouble(house: Served, rounds: int, seconds: int, script: Path) -> Iterator[dict[str, Any]]:
    """An open loop while a shadow hangs, and while one of two replicas does."""
    digests = {row["version"]: row["package_digest"] for row in house.run("versions", "list")["items"]}
    for endpoint, version, number, what in (
        ("shadowed", 2, "s1", "the shadow is stopped"),
        ("replicas", 1, "2", "one of two replicas is stopped"),
    ):
        place, before, during = infer(house, endpoint), [], []
        pid = house.pids()[f"model-server-{package_hex(digests[version])[:12]}-{number}"]
        rate = 0.5 * load(place, CONNECTIONS, script, seconds)["rate"]
        for turn in range(rounds):
            settled()
            before.append(open_loop(place, body(1), rate, seconds, turn))
            settled()
            os.kill(pid, signal.SIGSTOP)
            try:
                during.append(open_loop(place, body(1), rate, 2 * seconds, turn))
            finally:
                os.kill(pid, signal.SIGCONT)
        yield from (line(f"before {what}", before), line(what, during))


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
