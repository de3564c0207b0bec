"""Frames between gateway and model server: size and number, then msgpack. A batch of waiting requests is one frame."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import msgspec

FRAME = struct.Struct("<IQ")
"""Bytes of the payload, number of the batch: answers come back under the number of their question, in any order."""
LIMIT = 1 << 27
"""No frame is larger: 10 MiB of JSON become less, and 4096 rows of a thousand classes too."""
TOO_LATE = "nobody waited any more"
"""The failure of what a server left undone: see `BatchRequest.left_us`."""


class BatchRequest(msgspec.Struct, array_like=True, frozen=True):
    """Waiting requests as one message: the rows of each request, then the packed columns of all rows.

    `left_us`: for so long somebody waits for an answer; a server that gets to it later leaves the batch undone.
    """

    counts: list[int]
    columns: list[Any]
    left_us: int = 2**62


class BatchAnswer(msgspec.Struct, array_like=True, frozen=True):
    """float64 numbers of all rows (`width` each, NaN where a request failed), failures by request's index, model time."""

    numbers: bytes
    failures: dict[int, str]
    model_us: int


encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(BatchRequest).decode
decode_answer = msgspec.msgpack.Decoder(BatchAnswer).decode


def frame(number: int, message: BatchRequest | BatchAnswer) -> bytes:
    """The bytes of one frame."""
    payload = encode(message)
    return FRAME.pack(len(payload), number) + payload


def frames(buffer: bytearray) -> Iterator[tuple[int, bytes]]:
    """Number and payload of every complete frame, cut off the buffer.

    Raises:
        ValueError: the size is impossible: the peer does not speak this protocol.
    """
    start = 0
    while len(buffer) - start >= FRAME.size:
        size, number = FRAME.unpack_from(buffer, start)
        if size > LIMIT:
            raise ValueError(f"a frame of {size} bytes")
        end = start + FRAME.size + size
        if len(buffer) < end:
            break
        yield number, bytes(buffer[start + FRAME.size : end])
        start = end
    del buffer[:start]
