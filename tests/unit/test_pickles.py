"""A pickle is told by its bytes, whatever it is called and however it is wrapped; model files are none."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import zipfile
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from interlock.training.pickles import is_pickle

THINGS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner),
)


@given(THINGS, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_every_pickle_of_every_protocol_is_one(thing: Any, protocol: int) -> None:
    assert is_pickle(pickle.dumps(thing, protocol))


@pytest.mark.parametrize("module", [gzip, zlib, bz2, lzma], ids=lambda one: one.__name__)
def test_compressed_as_joblib_does(module: Any) -> None:
    assert is_pickle(module.compress(pickle.dumps(LogisticRegression())))


@pytest.mark.parametrize("name", ["archive/data.pkl", "archive/version"])
def test_an_archive_with_one_inside(name: str) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme", "weights")
        archive.writestr(name, pickle.dumps([1, 2]))
    assert is_pickle(buffer.getvalue())


def test_what_joblib_writes() -> None:
    import joblib

    for compress in (0, 3, ("xz", 1)):
        buffer = io.BytesIO()
        joblib.dump({"weights": np.arange(9)}, buffer, compress=compress)
        assert is_pickle(buffer.getvalue())


def test_model_files_are_none() -> None:
    import skops.io
    from skl2onnx import to_onnx

    rows = np.array([[0.0], [1.0]], np.float32)
    model = LogisticRegression().fit(rows, [0, 1])
    state = io.BytesIO()
    np.savez(state, weights=rows)
    texts = [
        b"",
        b"tree\nversion=v4\nend of parameters\n\npandas_categorical:null\n",
        b'{"learner": {}}',
        b"A sentence.",
    ]
    files = [
        skops.io.dumps(model),
        to_onnx(model, rows).SerializeToString(),
        state.getvalue(),
        b"PK\x03\x04torn",
        *texts,
    ]
    assert [is_pickle(one) for one in files] == [False] * len(files)
