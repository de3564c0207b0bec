"""The recorder: journals → warehouse, rows a second at forty columns, and the memory it takes.

python -m bench.bench_recorder
"""

from __future__ import annotations

import asyncio
import resource
import struct
import tempfile
import time
from pathlib import Path

from bench.report import publish, spread
from interlock.core.ids import uuid7, uuid7_text
from interlock.predlog.journal import Journal
from interlock.predlog.record import Field, Prediction, Schema
from interlock.predlog.recorder import Recorder
from interlock.warehouse.ducklake import open_warehouse

ROWS = 200_000
ROUNDS = 3
INPUTS = 16


def main() -> None:
    """Run and publish."""
    rates, sizes = [], 0
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            journals = Path(folder) / "journals"
            asyncio.run(_write(journals))
            recorder = Recorder(journals, open_warehouse(Path(folder) / "warehouse", create=True), print)
            began = time.perf_counter()
            recorder.step(flush=True)
            rates.append(ROWS / (time.perf_counter() - began))
            sizes = recorder.rows
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    publish("recorder", [{"rows": sizes, "rows/s": spread(rates), "peak MiB": memory}])


async def _write(folder: Path) -> None:
    fields = tuple(Field(f"x{i}", "float") for i in range(INPUTS))
    schema = Schema("sha256:0", fields, (Field("score", "float"), Field("label", "bool")))
    journal = Journal(folder, uuid7(), fsync="never", reserve=0)
    for number in range(1, ROWS + 1):
        at = 1_370_000_000_000_000 + number
        record = Prediction(
            uuid7_text(), f"flight-{number}", "flight-delay", at, at, f"N{number % 3000}", "client", "e", 1, "champion", 1.0,
            "flight-delay", 1, "sha256:0", 1, "answered", "", 900, 500, number, 1,
            [struct.pack("d", number / (i + 1)) for i in range(INPUTS)], [[0.5], [True]],
        )  # fmt: skip
        journal.append(record, schema)
        if number % 100 == 0:
            await journal.written()
    await journal.close()


if __name__ == "__main__":
    main()
