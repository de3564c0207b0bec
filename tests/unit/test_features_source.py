"""The feature function travels as one self-contained file, or is refused by the name of what it would leave behind."""

from __future__ import annotations

import importlib
import itertools
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from interlock.core.errors import RecipeFailed
from interlock.model.features import ENTRY, extract_source, load_source

_numbers = itertools.count()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], types.ModuleType]:
    """Imports source as one of the user's modules."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(source: str, name: str = "") -> types.ModuleType:
        name = name or f"recipe_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return make


GOOD = """
from __future__ import annotations
import math
import numpy as np
import pandas as pd
from pandas import DataFrame as Frame
from typing import TYPE_CHECKING
import json  # stays at home
from interlock.training import features

if TYPE_CHECKING:
    from nowhere import Unknown

SCALE: Unknown = 2.0
FACTORS = {"a": SCALE}
FACTORS |= {"b": 3.0}
features_unused = json.dumps({})


def helper(value: Unknown, times: float = SCALE) -> Unknown:
    # a comment that the reviewer should see
    def inner(x):
        return x * times
    return inner(value)


@features
def build(raw: Frame) -> Frame:
    total = sum(FACTORS[name] for name in ("a", "b"))
    return raw.assign(x=helper(raw["x"]) * total, y=np.float64(math.pi), z=Round(1).value)


class Round:
    def __init__(self, value):
        self.value = int(pd.to_numeric(value))


@features
def other(raw):
    return raw
"""


def test_what_travels_is_all_that_it_needs_and_gives_the_same_columns(
    module: Callable[[str], types.ModuleType],
) -> None:
    function = module(GOOD).build
    source = extract_source(function)
    assert "interlock" not in source
    assert "json" not in source
    assert "def other" not in source
    assert "# a comment that the reviewer should see" in source
    assert source.endswith(f"{ENTRY} = build\n")
    raw = pd.DataFrame({"x": [1.0, 2.0]})
    pd.testing.assert_frame_equal(load_source(source.encode(), "sha256:1")(raw), function(raw))


def test_a_loaded_file_shares_no_state_with_the_users_module(module: Callable[[str], types.ModuleType]) -> None:
    users = module("SEEN = []\n\ndef build(raw):\n    SEEN.append(1)\n    return raw\n")
    loaded = load_source(extract_source(users.build).encode(), "sha256:2")
    loaded(1)
    assert users.SEEN == []


def test_without_a_feature_function_the_columns_stay_as_they_are() -> None:
    raw = pd.DataFrame({"x": [1]})
    assert load_source(extract_source(None).encode(), "sha256:3")(raw) is raw


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("from shared import clean\n\ndef build(raw):\n    return clean(raw)\n", "clean"),
        ("import shared\n\ndef build(raw):\n    return shared.clean(raw)\n", "shared"),
        ("def build(raw):\n    from shared import clean\n    return clean(raw)\n", "clean"),
        ("import shared\n\nclass Better(shared.Base):\n    pass\n\ndef build(raw):\n    return Better()\n", "shared"),
        ("from shared import *\n\ndef build(raw):\n    return clean(raw)\n", "clean"),
        ("if True:\n    LIMIT = 3\n\ndef build(raw):\n    return raw[:LIMIT]\n", "LIMIT"),
        ("globals()['LIMIT'] = 3\n\ndef build(raw):\n    return raw[:LIMIT]\n", "LIMIT"),
        ("from interlock.core.clock import SystemClock\n\ndef build(raw):\n    return SystemClock()\n", "SystemClock"),
        ("import msgspec\n\ndef build(raw):\n    return msgspec.json.encode(raw)\n", "msgspec"),
        ("import functools\nbuild = functools.partial(print)\nbuild.__name__ = 'build'\n", "build"),
        ("build = lambda raw: raw\n", "lambda"),
        (
            "def outer():\n    x = 1\n    def build(raw):\n        return x\n    return build\n\nbuild = outer()\n",
            "build",
        ),
    ],
)
def test_what_cannot_travel_is_refused_by_name(
    module: Callable[..., types.ModuleType], source: str, named: str
) -> None:
    module("class Base: pass\n\ndef clean(raw): return raw\n", "shared")
    with pytest.raises(RecipeFailed, match=named):
        extract_source(module(source).build)


def test_a_declared_requirement_travels_by_name(module: Callable[[str], types.ModuleType]) -> None:
    function = module("import msgspec\n\ndef build(raw):\n    return msgspec.json.encode(raw)\n").build
    assert load_source(extract_source(function, ["msgspec"]).encode(), "sha256:4")([1]) == b"[1]"


@pytest.mark.parametrize("source", [b"1 / 0\n", b"x = (\n", b"x = 1\n"])
def test_a_file_that_cannot_be_loaded_is_a_clear_error(source: bytes) -> None:
    with pytest.raises(RecipeFailed, match=r"features\.py"):
        load_source(source, "sha256:5")
