"""A small package of compiled trees, made without the library of its model: what the base install can serve."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from tests.house import INPUTS as ALL
from tests.house import House, rows

from interlock.model import features, oip
from interlock.model.columns import to_lists
from interlock.model.manifest import Compiled, Runtime
from interlock.model.runtimes import compiled
from interlock.model.runtimes.compiled import Codes, Plan
from interlock.model.signature import Signature

INPUTS = ALL[:4]
"""Without the time stamp, for which a model server needs pandas."""
SIGNATURE = Signature("binary", INPUTS, (False, True))
FILE = "model/model.txt"
MODEL = """tree
version=v4
num_class=1
num_tree_per_iteration=1
label_index=0
max_feature_idx=3
objective=binary sigmoid:1
feature_names=distance temp stops carrier
feature_infos=none none none none

Tree=0
num_leaves=4
num_cat=0
split_feature=0 1 3
split_gain=1 1 1
threshold=1500.3 12.25 1.5
decision_type=10 10 10
left_child=2 -2 -1
right_child=1 -3 -4
leaf_value=-0.7 0.2 0.9 {last}
leaf_weight=1 1 1 1
leaf_count=1 1 1 1
internal_value=0 0 0
internal_weight=1 1 1
internal_count=4 2 2
shrinkage=1

end of trees
"""
"""Far and warm, far and cold (or of unknown temperature), near with United, near with others: a leaf each."""


def last_leaf(seed: int) -> float:
    """The leaf in which the models of two seeds differ."""
    return -0.1 - seed / 10


def score(seed: int, distance: float, temp: float | None, carrier: str) -> float:
    """What the model of that seed says of a row."""
    if distance <= 1500.3:
        leaf = last_leaf(seed) if carrier == "UA" else -0.7
    else:
        leaf = 0.9 if temp is not None and temp > 12.25 else 0.2
    return 1 / (1 + math.exp(-leaf))


def package(house: House, seed: int = 0) -> str:
    """Publish the model of that seed; the digest."""
    text = MODEL.format(last=last_leaf(seed))
    codes = Codes({"AA": 0.0, "B6": 1.0, "UA": 2.0}, None, None, None)
    model = {
        FILE: text.encode(),
        compiled.FILE: text.encode(),
        compiled.PLAN: msgspec.json.encode(Plan([0, 1, 2, 3], {3: codes}, [])),
    }
    runtime = Runtime("lightgbm", FILE, compiled=Compiled(compiled.FILE, 1.0, 1.0))
    raw = rows(400, seed)[:4]
    names = tuple(spec.name for spec in INPUTS)
    labels = (raw[0] > np.median(raw[0])).tolist()
    return house.publish(SIGNATURE, runtime, model, features.IDENTITY.encode(), names, raw, labels)


def lists(count: int, seed: int = 0) -> list[list[Any]]:
    """Random raw rows, column by column, as a client has them."""
    return to_lists(INPUTS, rows(count, seed)[:4])


def tensors(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """The same rows as the inputs of an Open Inference request."""
    return oip.write_inputs(SIGNATURE, lists(count, seed))
