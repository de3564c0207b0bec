"""The round-trip proof: raw rows through every wire codec and a real model server give what training gave."""

from __future__ import annotations

import contextlib
import os
import selectors
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec
import numpy as np
from numpy.typing import NDArray

from interlock.core.errors import InterlockError, RecipeFailed
from interlock.core.lifeline import Child
from interlock.evaluation.codecs import CODECS
from interlock.evaluation.report import Proof
from interlock.model import oip
from interlock.model.answers import Answer, derive
from interlock.model.columns import pack, to_lists, unpack
from interlock.model.golden import Golden
from interlock.model.manifest import Manifest

READY_SECONDS = 60.0
ANSWER_SECONDS = 60.0
SIZES = (1, 2, 61)
"""Rows of the requests, over and over: alone, few, many."""
PURE = "is the feature function pure? A row must give the same columns alone and in any batch"


class _Told(msgspec.Struct):
    """The line in which a model server says why it does not start."""

    message: str


class OfflineServer:
    """A model server of an unapproved package, on a Unix socket that nobody else knows."""

    def __init__(self, package: Path, folder: Path) -> None:
        self.socket = folder / "s"
        self._log: IO[bytes] = (folder / "log").open("w+b")
        command = [sys.executable, "-m", "interlock.processes.model_server", "--offline", "--grpc"]
        self._said = b""
        self._read, write = os.pipe()
        self._started = time.time()
        try:
            self._child = Child(
                [*command, "--package", str(package), "--socket", str(self.socket)],
                environment=os.environ,
                output=write,
                stderr=self._log,
            )
        finally:
            os.close(write)

    def wait(self) -> None:
        """Return when it is ready.

        Raises:
            RecipeFailed: it refuses the package: its golden rows give other answers there.
        InterlockError: it ended, or was not ready in time; says what it wrote.
        """
        deadline = time.monotonic() + READY_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(self._read, selectors.EVENT_READ)
            while b"ready:" not in self._said:
                waiting = selector.select(max(deadline - time.monotonic(), 0))
                data = os.read(self._read, 4096) if waiting else b""
                if not data:
                    raise self._refusal()
                self._said += data

    def start_seconds(self) -> float:
        """From its start until it listened, which it does when it is ready: the age of its socket then."""
        return round(self.socket.stat().st_mtime - self._started, 3)

    def _refusal(self) -> InterlockError:
        """Why it is not there: its own error, or whatever it wrote."""
        self._log.seek(0)
        words = self._log.read().decode(errors="replace").strip()
        try:
            told = msgspec.json.decode(words, type=_Told)
        except msgspec.DecodeError:
            return InterlockError(f"the model server did not start: {words or 'no word from it'}")
        return RecipeFailed(f"the model server refuses the package: {told.message}", next=PURE)

    @property
    def child(self) -> Child:
        """Its process."""
        return self._child

    def stop(self) -> None:
        """End it."""
        self._child.stop(5.0)
        os.close(self._read)
        self._log.close()


@contextlib.contextmanager
def offline_server(package: Path) -> Iterator[OfflineServer]:
    """Start a model server; it gets ready while the block does other things, and ends with it."""
    with tempfile.TemporaryDirectory(prefix="interlock-") as folder:  # short, because socket paths end at 107 bytes
        server = OfflineServer(package, Path(folder))
        try:
            yield server
        finally:
            server.stop()


def prove(server: OfflineServer, manifest: Manifest, rows: Golden) -> Proof:
    """Send raw rows and compare with the training side's numbers.

    Raises:
        RecipeFailed: an answer differs; says which row, what was expected and what came.
    """
    server.wait()
    signature = manifest.signature
    _, columns = oip.read_columns(signature, oip.InferRequest(rows.inputs))
    lists = to_lists(signature.inputs, unpack(signature, pack(signature, columns)))
    numbers = np.array(rows.numbers).reshape(-1, signature.width)
    worst = 0.0
    for name, codec in CODECS.items():
        at = 0
        for answer in codec(server.socket, manifest, lists):
            count = len(next(iter(answer.outputs.values())))
            worst = max(worst, _compare(name, at, manifest, numbers[at : at + count], answer))
            at += count
        if at != len(numbers):
            raise RecipeFailed(f"the model server answered {at} of {len(numbers)} rows over {name}")
    return Proof(True, len(numbers), tuple(CODECS), manifest.rtol, worst, server.start_seconds())


def _compare(codec: str, at: int, manifest: Manifest, numbers: NDArray[np.float64], answer: Answer) -> float:
    """The largest relative difference of some rows."""
    expected = derive(manifest.signature, numbers.ravel().tolist(), manifest.threshold)
    worst = 0.0
    for name, values in expected.outputs.items():
        found = answer.outputs[name]
        if name == "label":
            differing = [
                row for row, value in enumerate(values) if (found[row], type(found[row])) != (value, type(value))
            ]
        else:
            relative = relative_difference(values, found)
            differing = np.flatnonzero(relative > manifest.rtol).tolist()
            worst = max(worst, float(relative.max(initial=0.0)))
        if differing:
            row = differing[0]
            raise RecipeFailed(
                f"held-out row {at + row} over {codec}: training gave {name} {values[row]!r}, "
                f"the model server {found[row]!r}",
                next=PURE,
            )
    return worst


def relative_difference(expected: list[object], found: list[object]) -> NDArray[np.float64]:
    """The largest relative difference of each row's numbers, between 0 and infinity."""
    a, b = np.array(expected, np.float64), np.array(found, np.float64)
    difference = np.abs(a - b) / np.maximum(np.abs(a), np.finfo(np.float64).tiny)
    worst: NDArray[np.float64] = difference.reshape(len(expected), -1).max(axis=1)
    return worst
