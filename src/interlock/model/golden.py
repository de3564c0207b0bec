"""Raw rows and the numbers that training gave for them: `golden.json` of a package, rows of a round-trip proof."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from interlock.model import oip
from interlock.model.columns import Array, to_lists
from interlock.model.signature import Signature

FILE = "golden.json"
ROWS = 16


class Golden(msgspec.Struct, frozen=True):
    """`inputs`: tensors of an Open Inference request; `numbers`: row after row, `signature.width` each."""

    inputs: list[oip.Tensor]
    numbers: list[float]


def encode(signature: Signature, arrays: list[Array], numbers: NDArray[np.float64]) -> bytes:
    """The bytes of `golden.json` for raw rows and their numbers [rows, width]."""
    inputs = oip.write_inputs(signature, to_lists(signature.inputs, arrays))
    return msgspec.json.encode({"inputs": inputs, "numbers": numbers.ravel().tolist()})


def decode(data: bytes) -> Golden:
    """Read `golden.json`."""
    return msgspec.json.decode(data, type=Golden)
