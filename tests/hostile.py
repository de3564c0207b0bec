"""Requests that nobody should send, by a seed: every form that a gateway reads, with wrong values and damaged bytes."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import random
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from tests.house import House

from interlock.core.clock import FIRST_US, LAST_US
from interlock.core.hashing import digest
from interlock.model import features, oip, oip_binary, oip_grpc
from interlock.model.frames import to_frame
from interlock.model.manifest import Runtime
from interlock.model.signature import Input, Signature

EVERY = Signature(
    "binary",
    (
        Input("f", "float"),
        Input("fn", "float", nullable=True),
        Input("i", "int"),
        Input("in", "int", nullable=True),
        Input("b", "bool"),
        Input("bn", "bool", nullable=True),
        Input("s", "string", nullable=True),
        Input("c", "category", unseen="refuse", categories=("a", "b", "ß")),
        Input("t", "timestamp", zone="America/New_York"),
        Input("tn", "timestamp", zone="Pacific/Kiritimati", nullable=True),
    ),
    classes=(False, True),
)
MATRIX = Signature(
    "binary",
    tuple(Input(f"x{at}", "float", nullable=at > 0) for at in range(4)),
    classes=(False, True),
    layout="matrix",
)
FEATURES = """import numpy as np
import pandas as pd


def features(raw):
    made = {}
    for name in raw:
        one = raw[name]
        if hasattr(one.dt, "hour") if one.dtype.kind == "M" else False:
            made[name] = one.dt.hour + one.dt.year / 1e4
        elif one.dtype == object:
            made[name] = one.astype(str).str.len().clip(0, 100)
        else:
            made[name] = one.astype(float).clip(-1e3, 1e3)
    return pd.DataFrame(made).fillna(-1.0).astype(float)


__features__ = features
"""


class Case(NamedTuple):
    """A request; with `Inference-Header-Content-Length` among the headers its body goes on in binary."""

    path: str
    headers: dict[str, bytes]
    body: bytes


class Raw(str):
    """JSON that is written as it is; what no text can hold is in surrogates."""


def lists_of(signature: Signature, rng: random.Random, rows: int, largest: float = 1e308) -> list[list[Any]]:
    """Rows that fit, as columns."""
    values: dict[str, Callable[[], Any]] = {
        "float": lambda: rng.choice([rng.gauss(0, 100), 0.0, -0.0, largest, 5e-324, 3]),
        "int": lambda: rng.choice([rng.randint(-9, 9), 2**53, -(2**53)]),
        "bool": lambda: rng.random() < 0.5,
        "string": lambda: rng.choice(["", "x", 'a "quoted", text', "ü\n\r", "\x00", "🙂", "[{" * 40]),
        "category": lambda: rng.choice(["a", "b", "ß"]),
        "timestamp": lambda: rng.choice([rng.randint(0, 2 * 10**15), FIRST_US, LAST_US]),
    }
    return [
        [None if spec.nullable and rng.random() < 0.2 else values[spec.type]() for _ in range(rows)]
        for spec in signature.inputs
    ]


def publish(house: House, signature: Signature) -> str:
    """A small real model of that signature, whatever comes in; the digest of its package."""
    from sklearn.linear_model import LogisticRegression

    from interlock.model.columns import pack, unpack
    from interlock.model.runtimes import sklearn

    lists = lists_of(signature, random.Random(1), 200, 1e3)
    tensors = oip.decode(oip.encode({"inputs": oip.write_inputs(signature, lists)}))
    raw = unpack(signature, pack(signature, oip.read_columns(signature, tensors)[1]))
    source = FEATURES.encode()
    frame = features.load_source(source, digest(source))(to_frame(signature.inputs, raw))
    late = np.arange(200) % 2 == 0
    stored = sklearn.dump(LogisticRegression(max_iter=5000).fit(frame / 1000, late))
    runtime = Runtime("sklearn", "model/model.skops", stored.types)
    return house.publish(signature, runtime, stored.files, source, tuple(frame.columns), raw, late.tolist())


def deep(levels: int) -> Raw:
    """A list in a list in a list."""
    return Raw("[" * levels + "]" * levels)


LEAVES: list[Any] = [
    None, True, False, 0, -1, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 10**30, 1.5, "", "x", "é", "\x00", "x" * 70_000,
    "1e5", "true", "2013-06-01T10:00:00-04:00", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "soon",
    [], [[]], {}, [None], {"a": 1}, [[1, 2], [3]], deep(30), deep(61), deep(70), deep(999), deep(3000), Raw("[" * 5000),
    *map(Raw, ("1" + "0" * 400, "1" * 5000, "1e308", "1e400", "-1e400", "-0", "5e-324", "NaN", "Infinity", "-Infinity", "01")),
    *map(Raw, ("1.", "nul", "'x'", '"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"\udcff"', '"\\x"', '{"a":1,"a":2}', "")),
]  # fmt: skip


def dump(tree: Any) -> str:
    """JSON, with `Raw` as it is."""
    if isinstance(tree, Raw):
        return tree
    if isinstance(tree, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{dump(value)}" for key, value in tree.items()) + "}"
    return f"[{','.join(map(dump, tree))}]" if isinstance(tree, list) else json.dumps(tree)


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Every container with every key of it."""
    if not isinstance(tree, dict | list):
        return []
    keys = list(tree) if isinstance(tree, dict) else range(len(tree))
    return [(tree, key) for key in keys] + [place for key in keys for place in places(tree[key])]


def spoil(tree: Any, rng: random.Random) -> Any:
    """The tree with one thing wrong in it, mostly."""
    found = places(tree)
    if not found:
        return rng.choice(LEAVES)
    container, key = rng.choice(found)
    match rng.randrange(6):
        case 0 if isinstance(container, dict):
            container[rng.choice(["", "inputs", "x", "parameters", "binary_data_size"])] = container.pop(key)
        case 0 | 1:
            del container[key]
        case 2 if isinstance(container, list):
            container += container[:3]
        case 2:
            container[key] = Raw(f"{dump(container[key])},{json.dumps(key)}:{dump(container[key])}")  # came twice
        case 3:
            container[key] = [container[key]]
        case _:
            container[key] = rng.choice(LEAVES)
    return tree


def damage(data: bytes, rng: random.Random) -> bytes:
    """Cut short, some bytes changed, or a piece twice."""
    made = bytearray(data)
    at = rng.randrange(len(made) + 1)
    match rng.randrange(4):
        case 0:
            return bytes(made[:at])
        case 1:
            return bytes(made[:at] + rng.randbytes(rng.randrange(1, 9)) + made[at:])
        case 2:
            return bytes(made[:at] + made[max(0, at - 30) :])
        case _:
            for _ in range(rng.randrange(1, 5) if made else 0):
                made[rng.randrange(len(made))] = rng.randrange(256)
            return bytes(made)


def written(tree: Any, rng: random.Random) -> bytes:
    """The bytes of a tree, spoilt and damaged now and then."""
    while rng.random() < 0.4:
        tree = spoil(tree, rng)
    data = dump(tree).encode("utf-8", "surrogateescape")
    return damage(data, rng) if rng.random() < 0.15 else data


HEADERS: dict[str, list[bytes]] = {
    "x-interlock-unit": [b"N1", b"", b"x" * 257, b"\xff\xfe", "é".encode(), b" "],
    "x-interlock-event-time": [
        b"2013-06-01T00:00:00Z", b"0001-01-01T00:00:00+01:00", b"9999-12-31T23:59:59-01:00", b"soon", b"1370000000", b"\xff", b"",
        b"2013-06-01T00:00:00+99:99", b"2013-W01-1T00:00:00Z", b"10000-01-01T00:00:00Z", b"9" * 400,
    ],
    "traceparent": [b"00-%s-%s-01" % (trace * 32, b"2" * 16) for trace in (b"1", b"0")] + [b"\xff", b"00-"],
    "x-amzn-sagemaker-inference-id": [b"id", b"x" * 5000, b"\xff\xe9"],
    "x-amzn-sagemaker-target-variant": [b"champion", b"nobody", b"\xff", b"1", b"9" * 5000],
    "inference-header-content-length": [b"0", b"-1", b"1e3", b"x", b"9" * 5000, b"\xb2", b"17"],
    "content-type": [b"text/csv", b"text/csv; charset=latin-1", b"text/plain", b"\xff", b"", b"application/json;;"],
}  # fmt: skip
ENCODINGS: list[tuple[bytes, Callable[[bytes], bytes]]] = [
    (b"gzip", gzip.compress), (b"GZIP", gzip.compress), (b"x-gzip", gzip.compress), (b"deflate", zlib.compress),
    (b"identity", bytes), (b"gzip", bytes), (b"deflate", gzip.compress), (b"br", bytes), (b"gzip, gzip", gzip.compress),
    (b"gzip", lambda body: gzip.compress(body)[:-5]), (b"gzip", lambda body: gzip.compress(body) + b"x"), (b"\xff", bytes),
    (b"gzip", lambda body: gzip.compress(body + b" " * 11_000_000)),
]  # fmt: skip


CELLS = [
    "",
    "nan",
    "inf",
    "1e400",
    "1_0",
    "x",
    '"',
    "9" * 5000,
    "²",
    "True",
    "2013-06-01T00:00:00Z",
    "\x00",
    "0" * 200_000,
]


class Requests:
    """Requests to an endpoint whose model has that signature."""

    def __init__(self, signature: Signature, endpoint: str, seed: int) -> None:
        self.signature = signature
        self.rng = random.Random(seed)
        self.names = [spec.name for spec in signature.inputs]
        self.infer = f"/v2/models/{endpoint}/infer"
        self.invoke = f"/endpoints/{endpoint}/invocations"
        self.feedback = f"/endpoints/{endpoint}/feedback"
        self.forms = [self.oip, self.oip, self.binary, self.csv, self.split, self.records, self.instances, self.inputs]
        self.forms.append(self.labels)

    def next(self) -> Case:
        """The next one, of any form; a few are as they should be."""
        path, headers, body = self.rng.choice(self.forms)()
        for name, values in HEADERS.items():
            if self.rng.random() < 0.04:
                headers[name] = self.rng.choice(values)
        if self.rng.random() < 0.08:
            headers["content-encoding"], pack = self.rng.choice(ENCODINGS)
            body = pack(body)
        return Case(path, headers, body)

    def message(self) -> bytes:
        """The next message over gRPC."""
        tensors = [dict(tensor) for tensor in self._tensors()]
        for tensor in tensors:
            missing = math.nan if tensor["datatype"] == "FP64" else "" if tensor["datatype"] == "BYTES" else 0
            tensor["data"] = [missing if value is None else value for value in tensor["data"]]
            if self.rng.random() < 0.1:
                tensor["shape"] = self.rng.choice([[], [-1], [0], [2**62], [1, 1, 1], [2**62, 2**62]])
        data = oip_grpc.question("flight-delay", tensors, raw=self.rng.random() < 0.5)
        return damage(data, self.rng) if self.rng.random() < 0.6 else data

    def good(self) -> Case:
        """One as it should be."""
        lists = lists_of(self.signature, self.rng, 3, 1e3)
        return Case(self.infer, {}, oip.encode({"inputs": oip.write_inputs(self.signature, lists)}))

    def _lists(self) -> list[list[Any]]:
        return lists_of(self.signature, self.rng, self.rng.choice([1, 1, 2, 3, 20]))

    def _tensors(self) -> list[dict[str, Any]]:
        return oip.write_inputs(self.signature, self._lists())

    def _scoring(self, tree: Any) -> Case:
        return Case(self.invoke, {"content-type": b"application/json"}, written(tree, self.rng))

    def oip(self) -> Case:
        """Open Inference JSON, flat or nested."""
        tensors = self._tensors()
        for tensor in tensors:
            if self.rng.random() < 0.3:
                rows = tensor["shape"][0]
                width = len(tensor["data"]) // rows
                tensor["data"] = [tensor["data"][at : at + width] for at in range(0, rows * width, width)]
                tensor["shape"] = [rows, width]
            if self.rng.random() < 0.1:
                kinds = ["FP16", "FP32", "INT8", "UINT64", "BF16", "", "x" * 5000]
                tensor["datatype"] = self.rng.choice(kinds)
        tree: dict[str, Any] = {"inputs": tensors}
        if self.rng.random() < 0.3:
            given = {"unit_id": "N1", "event_time": "2013-06-01T00:00:00Z", "binary_data_output": True}
            tree["parameters"] = {key: value for key, value in given.items() if self.rng.random() < 0.6}
        if self.rng.random() < 0.2:
            tree |= {"id": "mine", "outputs": [{"name": "score", "parameters": {"binary_data": True}}]}
        return Case(self.infer, {"content-type": b"application/json"}, written(tree, self.rng))

    def binary(self) -> Case:
        """The binary tensor extension, with sizes that do not add up now and then."""
        tensors, parts = self._tensors(), []
        for tensor in tensors:
            values = [math.nan if value is None else value for value in tensor["data"]]
            if tensor["datatype"] != "FP64" and None in tensor["data"]:
                continue
            del tensor["data"]
            part = oip_binary.to_raw(tensor["datatype"], values)
            parts.append(damage(part, self.rng) if self.rng.random() < 0.1 else part)
            size = len(parts[-1]) + (self.rng.choice([-1, 1, 8]) if self.rng.random() < 0.05 else 0)
            tensor["parameters"] = {"binary_data_size": size}
        head = written({"inputs": tensors}, self.rng)
        length = len(head) + (self.rng.choice([-1, 1, 10**9]) if self.rng.random() < 0.1 else 0)
        return Case(self.infer, {"inference-header-content-length": b"%d" % length}, head + b"".join(parts))

    def csv(self) -> Case:
        """CSV, with odd cells."""
        rows = [self.names, *map(list, zip(*self._lists(), strict=True))]
        while self.rng.random() < 0.4:
            row = self.rng.choice(rows)
            row[self.rng.randrange(len(row))] = self.rng.choice(CELLS)
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        body = text.getvalue().encode()
        return Case(
            self.invoke, {"content-type": b"text/csv"}, damage(body, self.rng) if self.rng.random() < 0.4 else body
        )

    def split(self) -> Case:
        """`dataframe_split`."""
        rows = [list(row) for row in zip(*self._lists(), strict=True)]
        return self._scoring({"dataframe_split": {"columns": [*self.names], "data": rows}})

    def records(self) -> Case:
        """`dataframe_records`."""
        rows = [dict(zip(self.names, row, strict=True)) for row in zip(*self._lists(), strict=True)]
        return self._scoring({"dataframe_records": rows, "params": {"unit_id": "N1"}})

    def instances(self) -> Case:
        """`instances`."""
        return self._scoring({"instances": [list(row) for row in zip(*self._lists(), strict=True)]})

    def inputs(self) -> Case:
        """`inputs`."""
        return self._scoring({"inputs": dict(zip(self.names, self._lists(), strict=True))})

    def labels(self) -> Case:
        """Feedback."""
        item: dict[str, Any] = {"prediction_id": "01890000-0000-7000-8000-000000000000", "row": 0, "label": True}
        item |= {"outcomes": {"cost": 1.5}, "at": "2013-06-01T00:00:00Z"}
        return Case(
            self.feedback, {"content-type": b"application/json"}, written([item, dict(item, label="x")], self.rng)
        )
