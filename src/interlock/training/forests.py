"""Trees of any library as LightGBM's text, whose predictor is small, exact in 64 bits and the fastest that needs no compiler.

treelite reads the libraries' own forms; its dump is what is translated. A row goes left where its value is at most the
threshold, or missing and the default says so. Source: LightGBM's `Tree::ToString`, and treelite's model schema, version 4.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from interlock.model.runtimes.compiled import TINY

NAN_MISSING = 8
"""`decision_type`: a number, for which NaN is missing (2 << 2); with 2 added, missing goes left."""
NOTHING = re.compile(r'": (?=,?$)', re.MULTILINE)
"""What treelite writes in place of a number that is not finite."""
HEAD = """tree
version=v4
num_class={outputs}
num_tree_per_iteration={outputs}
label_index=0
max_feature_idx={last}
feature_names={names}
feature_infos={infos}

"""


class Untranslatable(ValueError):
    """The trees have something that LightGBM's have not; says what."""


def to_lightgbm(dump: dict[str, Any]) -> str:
    """A treelite dump as a LightGBM model; the sum of its leaves is the raw score, without base scores.

    Raises:
        Untranslatable: several targets, categorical splits, or outputs with different numbers of trees.
    """
    if dump["num_target"] != 1:
        raise Untranslatable(f"{dump['num_target']} targets")
    outputs = int(dump["num_class"][0])
    by_output: list[list[Any]] = [[] for _ in range(outputs)]
    for tree, output in zip(dump["trees"], dump["class_id"], strict=True):
        if output < 0:  # its leaves are vectors: a tree for each of their numbers
            for one in range(outputs):
                by_output[one].append((tree["nodes"], one))
        else:
            by_output[output].append((tree["nodes"], None))
    if len({len(trees) for trees in by_output}) != 1:
        raise Untranslatable("outputs with different numbers of trees")
    features = int(dump["num_feature"])
    names, infos = " ".join(f"f{i}" for i in range(features)), " ".join(["none"] * features)
    parts = [HEAD.format(outputs=outputs, last=features - 1, names=names, infos=infos)]
    in_turn = (tree for together in zip(*by_output, strict=True) for tree in together)
    parts += [f"Tree={number}\n{_tree(nodes, place)}\n\n" for number, (nodes, place) in enumerate(in_turn)]
    return "".join([*parts, "end of trees\n"])


def _tree(nodes: list[dict[str, Any]], place: int | None) -> str:
    """Splits and leaves are numbered apart; a child that is a leaf is the complement of its number."""
    leaves = [node for node in nodes if "leaf_value" in node]
    splits = [node for node in nodes if "leaf_value" not in node]
    number = {node["node_id"]: i for i, node in enumerate(splits)}
    number |= {node["node_id"]: ~i for i, node in enumerate(leaves)}
    if splits and number[nodes[0]["node_id"]] != 0:
        raise Untranslatable("a tree that does not begin with its root")
    lines = [f"num_leaves={len(leaves)}", "num_cat=0"]
    if splits:
        lines += [
            _line("split_feature", (str(node["split_feature_id"]) for node in splits)),
            _line("threshold", (repr(_at_most(node)) for node in splits)),
            _line("decision_type", (str(NAN_MISSING + 2 * node["default_left"]) for node in splits)),
            _line("left_child", (str(number[node["left_child"]]) for node in splits)),
            _line("right_child", (str(number[node["right_child"]]) for node in splits)),
        ]
    values = (node["leaf_value"] if place is None else node["leaf_value"][place] for node in leaves)
    return "\n".join([*lines, _line("leaf_value", (repr(float(value)) for value in values)), "shrinkage=1"])


def _at_most(node: dict[str, Any]) -> float:
    """The threshold up to which a value goes left."""
    if node["node_type"] != "numerical_test_node":
        raise Untranslatable("a split by categories")
    threshold = float(node["threshold"])
    match node["comparison_op"]:
        case "<=":
            found = threshold
        case "<":
            found = -TINY / 2 if threshold == 0 else math.nextafter(threshold, -math.inf)
        case other:
            raise Untranslatable(f"a split by {other}")
    if not math.isfinite(threshold):
        raise Untranslatable("a threshold that is not finite")
    if 0 < abs(threshold) < TINY:
        raise Untranslatable(f"a threshold of {threshold}, which is too small")
    return found


def _line(name: str, values: Iterator[str]) -> str:
    return f"{name}={' '.join(values)}"


def read_dump(found: Any) -> dict[str, Any]:
    """The dump of a treelite model."""
    dump: dict[str, Any] = json.loads(NOTHING.sub('": NaN', found.dump_as_json()))
    return dump
