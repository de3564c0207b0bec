"""The application of the demo: real flights as single-row requests over 32 connections, and their labels as of arrival."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from interlock.core.clock import iso, to_us
from interlock.model import oip
from interlock.model.signature import Signature
from interlock.warehouse.ducklake import open_warehouse

CONNECTIONS = 32
SEED = 2013
TAIL_NUMBERS = 640
FEEDBACK_ITEMS = 2000


class Flight(msgspec.Struct):
    """One flight as the application knows it: what it sends before departure, and what it learns after arrival."""

    body: bytes
    month: int
    flight_id: str
    late: bool | None
    arrived_at: datetime | None


class Tally(msgspec.Struct):
    """What the clients hold."""

    sent: int = 0
    outcomes: dict[str, int] = {}
    ids: dict[str, str] = {}
    """Prediction id by flight id, of every request that got an answer."""
    broken: int = 0
    """Requests whose connection broke before the answer; sent again."""

    def add(self, flight: Flight, outcome: str, prediction_id: str) -> None:
        """One answer."""
        self.sent += 1
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        if prediction_id:
            self.ids[flight.flight_id] = prediction_id


def flights(warehouse: Path, sql: Path, signature: Signature, *, full: bool) -> dict[int, list[Flight]]:
    """The flights of June to September by month, in the order of their departure; a seeded sample of tail numbers."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = open_warehouse(warehouse, read_only=True).query(sql.read_text(encoding="utf-8"))
    if not full:
        tails = sorted(pc.unique(table["tailnum"]).drop_null().to_pylist())
        chosen = random.Random(SEED).sample(tails, TAIL_NUMBERS)  # noqa: S311 a sample, no secret
        table = table.filter(pc.is_in(table["tailnum"], pa.array(chosen, table["tailnum"].type)))
    months: dict[int, list[Flight]] = {}
    for row in table.to_pylist():
        months.setdefault(row["month"], []).append(_flight(row, signature))
    return months


def _flight(row: dict[str, Any], signature: Signature) -> Flight:
    columns = []
    for spec in signature.inputs:
        value = row[spec.name]
        columns.append([to_us(value) if spec.type == "timestamp" and value is not None else value])
    parameters = {"event_time": iso(row["sched_dep"])} | ({"unit_id": row["tailnum"]} if row["tailnum"] else {})
    content = {"id": row["flight_id"], "parameters": parameters, "inputs": oip.write_inputs(signature, columns)}
    return Flight(oip.encode(content), row["month"], row["flight_id"], row["late"], row["arrived_at"])


class Replay:
    """Sends flights through the gateway; `progress(done, of)` is called now and then."""

    def __init__(self, host: str, port: int, endpoint: str) -> None:
        self.host = host
        self.port = port
        self.path = f"/v2/models/{endpoint}/infer"
        self.feedback_path = f"/endpoints/{endpoint}/feedback"
        self.tally = Tally()
        self._lock = threading.Lock()

    def send(self, those: list[Flight], progress: Callable[[int, int], None]) -> None:
        """Send them in order over 32 connections, each request when the one before on its connection is answered."""
        queue = iter(those)
        failures: list[Exception] = []

        def work() -> None:
            try:
                self._work(queue)
            except Exception as error:  # noqa: BLE001 - handed to the caller's thread below
                failures.append(error)

        began = self.tally.sent
        workers = [threading.Thread(target=work, daemon=True) for _ in range(CONNECTIONS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            while worker.is_alive():
                worker.join(0.5)
                progress(self.tally.sent - began, len(those))
        if failures:
            raise failures[0]

    def _work(self, queue: Any) -> None:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        headers = {"content-type": "application/json"}
        while True:
            with self._lock:
                flight = next(queue, None)
            if flight is None:
                connection.close()
                return
            outcome, prediction_id = self._ask(connection, flight, headers)
            with self._lock:
                self.tally.add(flight, outcome, prediction_id)

    def _ask(self, connection: http.client.HTTPConnection, flight: Flight, headers: dict[str, str]) -> tuple[str, str]:
        """Outcome and prediction id; when the gateway behind the connection dies, ask again, as a client would."""
        while True:
            try:
                connection.request("POST", self.path, flight.body, headers)
                answer = connection.getresponse()
                answer.read()
            except (http.client.HTTPException, OSError):
                connection.close()
                with self._lock:
                    self.tally.broken += 1
                time.sleep(0.01)
                continue
            outcome = answer.headers.get("x-interlock-outcome", f"status {answer.status}")
            return outcome, answer.headers.get("x-interlock-prediction-id", "")

    def feed_back(self, those: list[Flight]) -> int:
        """Labels as of arrival, in the order of arrival; how many. Flights that never arrived get none."""
        landed = sorted(
            (f for f in those if f.late is not None and f.arrived_at), key=lambda f: f.arrived_at or datetime.min
        )
        items = [
            {"prediction_id": self.tally.ids[f.flight_id], "label": f.late, "at": iso(f.arrived_at)}
            for f in landed
            if f.flight_id in self.tally.ids and f.arrived_at
        ]
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        for at in range(0, len(items), FEEDBACK_ITEMS):
            body = msgspec.json.encode(items[at : at + FEEDBACK_ITEMS])
            connection.request("POST", self.feedback_path, body, {"content-type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
            if answer.status != 202:
                raise RuntimeError(f"feedback: {answer.status} {said.decode(errors='replace')}")
        connection.close()
        return len(items)
