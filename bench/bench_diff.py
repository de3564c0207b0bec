"""The decision diff: two versions of the benchmarks' model over logged rows with labels, beside the models' own batch speed.

Ratios are of processor time, because others use the machine too: what both models take by themselves for the rows, in
batches of 2048 in one process, against all that the diff takes (start of processes, reading, asking, counting).

python -m bench.bench_diff [--rows 1000000]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.project import COMMAND, MODEL, WIDTH, Served, rows, served
from bench.report import publish
from interlock.core.project import Project
from interlock.model.package import verify
from interlock.model.predictor import Predictor
from interlock.registry.packages import PackageStore
from interlock.warehouse.ducklake import open_warehouse

PART = 50_000
BATCH = 2048
SECOND = 1_000_000
START = 1_780_000_000 * SECOND
RATE = 5000
"""Rows a second of the log."""


def main() -> None:
    """Run and publish."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    count = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        with served(Path(folder) / "house") as house:
            packages = [house.run("versions", "show", f"{MODEL}:{number}")["package_digest"] for number in (1, 2)]
        store = PackageStore(Project(house.root).packages)
        models = [Predictor(verify(store.find(package))) for package in packages]
        own = log(house, models[0], packages[0], count) + speed(models[1], rows(PART))
        began = time.perf_counter()
        found, processor, peak = asked(house, "diff", f"{MODEL}:1", f"{MODEL}:2", "--params", "THRESHOLD=0.45")
        seconds = time.perf_counter() - began
    assert found["changes"]["rows"] == found["mismatch"]["compared"] == count, found["unsupported"]
    assert found["mismatch"]["differing"] == 0
    publish(
        "diff",
        [
            {
                "rows": count,
                "seconds a million rows": seconds * 1e6 / count,
                "rows/s": count / seconds,
                "processor s a million rows": processor * 1e6 / count,
                "both models' own": own * 1e6,
                "ratio": own * count / processor,
                "peak MiB": peak,
                "changed": found["changes"]["changed"]["rows"],
            }
        ],
    )


def speed(model: Predictor, x: Any) -> float:
    """Seconds of processor a row of a model by itself, in batches."""
    columns = [np.ascontiguousarray(column) for column in x.T]
    began = time.process_time()
    for at in range(0, len(x), BATCH):
        model.predict([column[at : at + BATCH] for column in columns])
    return (time.process_time() - began) / len(x)


def log(house: Served, model: Predictor, package: str, count: int) -> float:
    """Write rows with the model's answers and labels, as the recorder would; seconds of processor a row that the model takes."""
    warehouse, speeds = open_warehouse(Project(house.root).warehouse), []
    for number, start in enumerate(range(0, count, PART)):
        x = rows(min(PART, count - start), seed=number)
        speeds.append(speed(model, x))
        scores = model.predict(list(x.T))[:, 0]
        n, position = len(x), np.arange(start, start + len(x))
        at = pa.array(START + position * (SECOND // RATE), pa.int64()).cast(pa.timestamp("us", tz="UTC"))
        ids = np.zeros((n, 16), np.uint8)
        ids[:, :6] = (START // 1000 + position // (RATE // 1000)).astype(">u8")[:, None].view(np.uint8)[:, 2:]
        ids[:, 6], ids[:, 8], ids[:, 12:] = 0x70, 0x80, position.astype(">u4")[:, None].view(np.uint8)
        made = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), n, [None, pa.py_buffer(ids.tobytes())])
        ids_ = pa.ExtensionArray.from_storage(pa.uuid(), made)
        texts = {
            "role": "live", "endpoint": MODEL, "unit_source": "client", "arm": "champion", "model": MODEL,
            "package_digest": package, "outcome": "answered", "reason": "", "experiment": "", "request_id": "r",
        }  # fmt: skip
        table = {
            "prediction_id": ids_, "row": pa.array(np.zeros(n), pa.int32()), "received_at": at, "event_time": at,
            "unit_id": pa.array([f"N{i % 3000}" for i in position.tolist()]), "seq": pa.array(position),
            "phase": pa.array(np.ones(n), pa.int32()), "version": pa.array(np.ones(n), pa.int32()),
            "route_revision": pa.array(np.ones(n), pa.int32()), "gateway": ids_[:1].take(pa.array([0] * n)),
            **{name: pa.array([text] * n) for name, text in texts.items()},
            **{f"in_x{i}": pa.array(x[:, i]) for i in range(WIDTH)},
            "out_score": pa.array(scores), "out_label": pa.array((scores >= 0.5).astype(int)),
        }  # fmt: skip
        truth = (x[:, 0] + x[:, 1] * x[:, 2] > 0).astype(float)
        feedback = {
            "prediction_id": ids_, "row": table["row"], "name": pa.array(["label"] * n), "value_num": pa.array(truth),
            "value_text": pa.nulls(n, pa.string()), "at": at, "received_at": at, "position": pa.array(position),
        }  # fmt: skip
        warehouse.append({f"predictions_{MODEL}": pa.table(table), f"feedback_{MODEL}": pa.table(feedback)}, {})
    warehouse.close()
    return float(np.median(speeds))


def asked(house: Served, *words: str) -> tuple[Any, float, float]:
    """The diff, the seconds of processor that it and its model servers took, and the most memory of one, in MiB."""
    with subprocess.Popen(
        [*COMMAND, *words, "--json"], cwd=house.root, env=house.environment, stdout=subprocess.PIPE
    ) as command:
        assert command.stdout is not None
        said = command.stdout.read()
        _, status, usage = os.wait4(command.pid, 0)
        command.returncode = os.waitstatus_to_exitcode(status)
    if command.returncode:
        raise RuntimeError(said.decode())
    return json.loads(said)["diff"], usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
