"""Memory under a long load: requests of one and of a hundred rows, labels, parameters that change, a shadow, all the time.

python -m bench.bench_soak [--minutes 30] [--rate 400]
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import msgspec

from bench.bench_online import memory
from bench.open_loop import open_loop
from bench.project import MODEL, Served, body, served
from bench.report import publish

WARM_MINUTES = 3
TURN_SECONDS = 20


def main() -> None:
    """Run and publish."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument(
        "--rate", type=float, default=400, help="requests of one row a second; one in fifty has a hundred"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, served(Path(folder) / "house") as house:
        house.run("deploy", house.train(2), "--to", MODEL, "--as", "shadow")
        began, sizes, asked, errors = time.monotonic(), dict[str, list[float]](), 0, 0
        while time.monotonic() < began + options.minutes * 60:
            asked, errors = soak(house, options.rate, asked, errors)
            for name, size in memory(house).items():
                sizes.setdefault(name, []).append(size)
        warm = int(WARM_MINUTES * 60 / TURN_SECONDS)
        publish(
            "soak", [row(name, found, warm) | {"requests": asked, "errors": errors} for name, found in sizes.items()]
        )


def soak(house: Served, rate: float, asked: int, errors: int) -> tuple[int, int]:
    """One turn: a new threshold, then both kinds of requests and labels at once."""
    house.run("params", MODEL, f"THRESHOLD={0.3 + 0.4 * (asked % 7) / 7:.3f}", "--reason", "soak")
    found: list[dict[str, float]] = []

    def ask(count: int, share: float) -> None:
        found.append(open_loop(house.infer, body(count), rate * share, TURN_SECONDS, asked))

    threads = [threading.Thread(target=ask, args=one) for one in ((1, 1.0), (100, 0.02))]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        label(house)
    return asked + int(sum(one["rate"] for one in found) * TURN_SECONDS), errors + int(
        sum(one["errors"] for one in found)
    )


def label(house: Served) -> None:
    """Ask once, and say what really was."""
    answer = post(house.infer, body(1).encode())
    label = {"prediction_id": answer["parameters"]["prediction_id"], "label": 1}
    post(f"{house.url}/endpoints/{MODEL}/feedback", msgspec.json.encode(label))
    time.sleep(0.1)


def post(url: str, content: bytes) -> Any:
    """The JSON that a POST is answered with."""
    request = urllib.request.Request(url, content, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return msgspec.json.decode(answer.read())


def row(name: str, sizes: list[float], warm: int) -> dict[str, Any]:
    """A process: its memory once warm, at the end, and its most."""
    return {"process": name, "warm MiB": sizes[min(warm, len(sizes) - 1)], "end MiB": sizes[-1], "most MiB": max(sizes)}


if __name__ == "__main__":
    main()
