"""What rules would have done to the requests that were logged last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import msgspec

from interlock.core.project import snake
from interlock.model.conditions import Conditions
from interlock.model.signature import Signature
from interlock.registry.routes import RouteDocument, Rule
from interlock.warehouse.port import Warehouse
from interlock.warehouse.session import quoted

PAGE = 2000
NEWEST = "ffffffff-ffff-ffff-ffff-ffffffffffff"

# Ids are ordered by time. A request that did not fit the signature never meets a rule.
ROWS = """
select prediction_id::varchar as id, "row", unit_id, epoch_us(event_time) as event_us, outcome, arm, COLUMNS
from interlock.TABLE
where role = 'live' and prediction_id in (
    select prediction_id from interlock.TABLE
    where role = 'live' and "row" = 0 and outcome <> 'invalid' and prediction_id < $before::uuid
    order by prediction_id desc limit $requests
)
order by prediction_id desc, "row"
"""


class Tried(msgspec.Struct):
    """One rule over all requests. `decided`: it was the first that held; `changed`: the client would have got something else;
    `failed`: rows for which it could not be evaluated; `shadowed_by`: an earlier rule that holds wherever this one does.
    """

    rule: str
    matched: int
    decided: int
    changed: int
    failed: int
    shadowed_by: str


def try_rules(warehouse: Warehouse, route: RouteDocument, signature: Signature, last: int) -> tuple[int, list[Tried]]:
    """Ask the rules of a route, which fit `signature`, about the last requests of its endpoint; how many there were.

    Raises:
        InvalidData: an input that they name was never logged.
    """
    conditions = [Conditions([rule.when], signature) for rule in route.rules]
    matched: list[set[int]] = [set() for _ in conditions]
    decided, changed, requests = [0] * len(matched), [0] * len(matched), 0
    for requests, rows in enumerate(_requests(warehouse, route.endpoint, signature, conditions, last), 1):
        columns = [[row.get(f"in_{spec.name}") for row in rows] for spec in signature.inputs]
        for at, one in enumerate(conditions):
            if one.first(columns, len(rows), rows[0]["unit_id"], rows[0]["event_us"]) is not None:
                matched[at].add(requests)
        first = next((at for at, found in enumerate(matched) if requests in found), None)
        if first is not None:
            decided[first] += 1
            changed[first] += _changes(route.rules[first], route, rows)
    tried = []
    for at, (rule, mine) in enumerate(zip(route.rules, matched, strict=True)):
        above = next((route.rules[i].name for i in range(at) if mine and mine <= matched[i]), "")
        tried.append(Tried(rule.name, len(mine), decided[at], changed[at], conditions[at].failed[0], above))
    return requests, tried


def _requests(
    warehouse: Warehouse, endpoint: str, signature: Signature, conditions: Sequence[Conditions], last: int
) -> Iterator[list[dict[str, Any]]]:
    """The rows of each of the last requests, newest first, a page at a time, all as they were at one moment."""
    columns = [quoted(f"out_{output.name}") for output in signature.outputs]
    for spec in (signature.inputs[at] for at in sorted({at for one in conditions for at in one.positions})):
        name = quoted(f"in_{spec.name}")
        columns.append(f"epoch_us({name}) as {name}" if spec.type == "timestamp" else name)
    sql = ROWS.replace("TABLE", f"predictions_{snake(endpoint)}").replace("COLUMNS", ", ".join(columns))
    snapshot, before = warehouse.snapshot(), NEWEST
    while last > 0:
        asked = min(last, PAGE)
        page = warehouse.query(sql, {"before": before, "requests": asked}, snapshot=snapshot).to_pylist()
        found = [list(rows) for _, rows in groupby(page, itemgetter("id"))]
        yield from found
        if len(found) < asked:
            return
        last, before = last - asked, page[-1]["id"]


def _changes(rule: Rule, route: RouteDocument, rows: list[dict[str, Any]]) -> bool:
    if rule.then == "refuse":
        return bool(rows[0]["outcome"] != "refused")
    if rule.then == "use":
        return bool(rows[0]["arm"] != rule.arm)
    fixed: Any = route.parameters.fallback if rule.output is None else rule.output
    return any(row[f"out_{name}"] != value for row in rows for name, value in fixed.items())
