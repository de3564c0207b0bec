"""A real project for the online benchmarks, made with the product's own commands: the model of docs/decisions/0005.

StandardScaler and HistGradientBoosting, 100 iterations, on 30 features; one tensor of shape [-1, 30].
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

WIDTH = 30
MODEL = "bench"
COMMAND = (sys.executable, "-c", "from interlock.cli import main; main()")

SETTINGS = """
model = "bench"
recipe = "recipe:train"
mode = "solo"
slices = []
[extract]
id = "id"
event_time = "at"
label = "label"
sql = "select * from bench"
[inputs]
{inputs}
[split]
kind = "random"
[endpoint]
layout = "matrix"
[serve]
gateway_port = {gateway}
grpc_port = {grpc}
control_port = {control}
gateways = {gateways}
"""

RECIPE = """
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from interlock.training import recipe


@recipe(task="binary")
def train(data, *, seed: int = 0):
    model = HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=seed)
    return make_pipeline(StandardScaler(), model).fit(data.features, data.label)
"""


class Served:
    """The running project."""

    def __init__(self, root: Path, port: int) -> None:
        self.root = root
        self.url = f"http://127.0.0.1:{port}"
        self.infer = f"{self.url}/v2/models/{MODEL}/infer"
        self.environment = {**os.environ, "INTERLOCK_KEYS_DIR": str(root / "keys"), "INTERLOCK_USER": "ann"}

    def run(self, *words: str) -> Any:
        """A command of the product; its JSON."""
        done = subprocess.run(
            [*COMMAND, *words, "--json"], cwd=self.root, env=self.environment, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"interlock {' '.join(words)}: {done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def train(self, seed: int) -> str:
        """Another approved version; its name."""
        run = self.run("train", "--wait", "--param", f"seed={seed}")
        name = f"{MODEL}:{run['version']}"
        self.run("approve", name, "--reason", "benchmark")
        return name

    def pids(self) -> dict[str, int]:
        """Process ids by name."""
        return {one["name"]: one["pid"] for one in self.run("status")["up"]["processes"]}


def rows(count: int, seed: int = 0) -> Any:
    """Random rows [count, 30] with one decimal."""
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).round(1)


def training_rows() -> tuple[Any, Any]:
    """What every model of the benchmarks is trained on: rows [6000, 30] and labels [6000] of 0 and 1."""
    x = rows(6000, 1)
    return x, (x[:, 0] + x[:, 1] * x[:, 2] + np.random.default_rng(2).normal(size=len(x)) > 0).astype(int)


def body(count: int) -> str:
    """An Open Inference request for so many rows."""
    tensor = {"name": "input", "shape": [count, WIDTH], "datatype": "FP64", "data": rows(count).ravel().tolist()}
    return json.dumps({"inputs": [tensor], "parameters": {"unit_id": "N1"}})


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def served(root: Path, *, gateways: int = 1, challenger: bool = True, replicas: int = 1) -> Iterator[Served]:
    """Train, approve, start and deploy: champion, and a challenger at 20 %."""
    gateway, grpc, control = free_ports(3)
    root.mkdir(parents=True)
    inputs = "\n".join(f'x{i} = "float"' for i in range(WIDTH))
    settings = SETTINGS.format(inputs=inputs, gateway=gateway, grpc=grpc, control=control, gateways=gateways)
    (root / "interlock.toml").write_text(settings)
    (root / "recipe.py").write_text(RECIPE)
    lines = [
        f"{i},2026-01-01T00:00:00Z,{','.join(map(str, row))},{label}"
        for i, (row, label) in enumerate(zip(*training_rows(), strict=True))
    ]
    heads = ",".join(["id", "at", *(f"x{i}" for i in range(WIDTH)), "label"])
    (root / "bench.csv").write_text("\n".join([heads, *lines]))
    found = Served(root, gateway)
    found.run("init", ".", "--as", "ann")
    found.run("data", "add", "bench.csv", "--as", "bench")
    versions = [found.train(0), *([found.train(1)] if challenger else [])]
    found.run("up", "--detach")
    try:
        for name, arm in zip(versions, ("champion", "challenger"), strict=False):
            weight = ("--weight", "20%") if arm == "challenger" else ()
            found.run("deploy", name, "--to", MODEL, "--as", arm, "--replicas", str(replicas), *weight)
        yield found
    finally:
        found.run("down")
