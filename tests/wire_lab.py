"""A model server's batch socket, asked as a gateway asks it."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
from tests.house import SIGNATURE, checked, rows

from interlock.model.columns import pack
from interlock.model.wire import BatchAnswer, BatchRequest, decode_answer, frame, frames


def together(path: Path, distances: list[float]) -> BatchAnswer:
    """The answer to requests of one row each that come as one batch; `distances` are their first inputs."""
    raw = rows(len(distances))
    raw[0] = np.array(distances)
    batch = BatchRequest([1] * len(distances), pack(SIGNATURE, checked(SIGNATURE, raw)))
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(20)
        one.connect(str(path))
        one.sendall(frame(1, batch))
        buffer = bytearray()
        while True:
            data = one.recv(65536)
            assert data, "the server hung up"
            buffer += data
            for _, payload in frames(buffer):
                return decode_answer(payload)
