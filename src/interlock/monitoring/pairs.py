"""Releases that can be held against their decision diff, and what both of their versions said to the same live requests."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from interlock.core.clock import parse_time
from interlock.core.errors import NotApproved, NotFound
from interlock.core.project import Project, snake
from interlock.core.trust import TrustRoot, read_trust
from interlock.model.package import read_manifest
from interlock.model.signature import Signature
from interlock.monitoring.counts import quoted
from interlock.registry import evidence
from interlock.registry.admission import admitted
from interlock.registry.approvals import Scope, read_decisions
from interlock.registry.packages import PackageStore
from interlock.registry.routes import CHAMPION, Arm, RouteDocument, RouteStore, Rule, Shadow
from interlock.store.database import Database
from interlock.warehouse.port import Warehouse

Counts = dict[str, list[int]]
"""What → live rows that the champion answered; of these, the shadow too; of these, otherwise. What: `all`, `direction:A → B`,
`slice:COLUMN = VALUE`; `units` has sums over units: Σn², Σnx, Σx² of a unit's n pairs, x of them different.
"""

# Each live row of the champion and its move, from the diff's first side to its second; null: none. All rows of a request, live
# and shadow, were received at one time.
PAIRS = """
with answers as (
    select prediction_id, "row", role, unit_id, date_trunc('hour', make_timestamp(epoch_us(received_at))) as hour,
        OUTPUT as said, [SLICES]::varchar[] as slices
    from interlock.PREDICTIONS
    where outcome = 'answered' and received_at >= $first and route_revision in (select unnest($revisions))
        and (role = 'live' and package_digest = $live or role = 'shadow' and package_digest = $shadow and arm = $arm)
), sides as (
    select live.*, shadow.said is not null as paired, if($after_is_live, shadow.said, live.said) as before,
        if($after_is_live, live.said, shadow.said) as after
    from answers live left join answers shadow
        on live.prediction_id = shadow.prediction_id and live."row" = shadow."row" and shadow.role = 'shadow'
    where live.role = 'live'
), pairs as (select *, MOVE as move from sides)
"""
LABELS = "case when before <> after then before || ' → ' || after end"
NUMBERS = """case when abs(after - before) > $tolerance * greatest(abs(after), abs(before))
    then if(after > before, 'value → higher', 'value → lower') end"""
SLICE = """$name_I || ' = ' || case when COLUMN is null then '(missing)'
    when list_contains($values_I::varchar[], COLUMN::varchar) then COLUMN::varchar else '(other)' end"""

COUNT = """
, told as (
    select hour, paired, move,
        unnest(['all', 'direction:' || move] || list_transform(slices, lambda one: 'slice:' || one)) as what
    from pairs
), units as (select hour, count(*) as n, count(move) as x from pairs where paired group by hour, unit_id)
select hour, what, count(*) as rows, count(*) filter (paired) as paired, count(move) as changed
from told where what is not null group by all
union all
select hour, 'units', sum(n * n)::bigint, sum(n * x)::bigint, sum(x * x)::bigint from units group by hour
"""

EXAMPLES = """
select prediction_id::varchar as prediction_id, "row", before::varchar as before, after::varchar as after
from pairs where move is not null
qualify row_number() over (partition by move order by prediction_id desc, "row") <= $each order by move, prediction_id desc, "row"
"""


class _Side(msgspec.Struct, frozen=True):
    subject: dict[str, Any]
    parameters: dict[str, Any]
    rules: tuple[Rule, ...]


class _Changes(msgspec.Struct, frozen=True):
    rows: int
    transitions: tuple[dict[str, Any], ...]
    slices: tuple[dict[str, Any], ...]


class Diff(msgspec.Struct, frozen=True):
    """What is read here of the document that docs/reference/diff.md describes."""

    format: Literal[1]
    endpoint: str
    before: _Side
    after: _Side
    changes: _Changes
    tolerance: float


class Release(msgspec.Struct, frozen=True):
    """Two versions that answer the same requests since `since`, one live and one as a shadow, and the signed diff about them.

    `revision`: the route's first one with both; `revisions`: those under the diff's THRESHOLD and rules, whose rows count.
    """

    name: str
    digest: str
    diff: Diff
    signature: Signature
    champion: Arm
    shadow: Shadow
    since: datetime
    revision: int
    revisions: tuple[int, ...]


def releases(project: Project, database: Database, endpoint: str, now: datetime) -> Iterator[Release]:
    """Those of an endpoint: the champion's approval binds a diff against a shadow, or a shadow's binds one against it.

    Raises:
        NotFound, Tampered, Corrupt: an approval binds a diff that is not to be read.
    """
    routes, trust = RouteStore(project.routes), read_trust(project.trust, project.root_fingerprint())
    route = routes.read(endpoint, trust, past=True)
    for shadow in route.shadows:
        champion = route.arm(CHAMPION)
        for before, after in ((shadow, champion), (champion, shadow)):
            digest = _bound(project, routes, route, after, trust, now)
            if digest is None:
                continue
            diff = evidence.decode(evidence.read(database, digest), Diff)
            sides = tuple(side.subject["package_digest"] for side in (diff.before, diff.after))
            if (diff.endpoint, sides) != (endpoint, (before.package_digest, after.package_digest)):
                continue
            signature = read_manifest(PackageStore(project.packages).find(sides[1]), sides[1]).signature
            name = " → ".join("{model}:{version}".format_map(side.subject) for side in (diff.before, diff.after))
            period = _period(routes, route, shadow, diff, trust, threshold=signature.task == "binary")
            yield Release(name, digest, diff, signature, champion, shadow, *period)


def _bound(
    project: Project, routes: RouteStore, route: RouteDocument, one: Arm | Shadow, trust: TrustRoot, now: datetime
) -> str | None:
    """The diff that the approvals bind by which a version is asked."""
    scope: Scope = "shadow" if isinstance(one, Shadow) else "serve"
    try:
        author = read_manifest(PackageStore(project.packages).find(one.package_digest), one.package_digest).author.name
        decisions = read_decisions(project.approvals, one.package_digest, trust)
        return admitted(routes, route, one.package_digest, decisions, author, scope, trust, now)[0].predicate.diff
    except (NotApproved, NotFound):  # nobody asks it then; other monitors say so
        return None


def _period(
    routes: RouteStore, route: RouteDocument, shadow: Shadow, diff: Diff, trust: TrustRoot, *, threshold: bool
) -> tuple[datetime, int, tuple[int, ...]]:
    """Since when, by which revision, champion and shadow are both asked without a break, and the revisions that count."""
    counted, since = [], route
    thresholds = {side.parameters["THRESHOLD"] for side in (diff.before, diff.after)}
    rules = [msgspec.structs.replace(rule, reason="") for rule in diff.after.rules]
    for number in range(route.revision, 0, -1):
        then = routes.read(route.endpoint, trust, number, past=True)
        asked = {arm.package_digest for arm in then.arms if arm.name == CHAMPION}
        asked |= {one.package_digest for one in then.shadows if one.name == shadow.name}
        if asked != {route.arm(CHAMPION).package_digest, shadow.package_digest}:
            break
        since = then
        if [msgspec.structs.replace(rule, reason="") for rule in then.rules] == rules and (
            not threshold or thresholds == {then.parameters.threshold}
        ):
            counted.append(number)
    return parse_time(since.time), since.revision, tuple(counted)


class Pairs:
    """The log of a release from a time on."""

    def __init__(self, warehouse: Warehouse, release: Release, first: datetime) -> None:
        self._warehouse, diff = warehouse, release.diff
        table, numbers = f"predictions_{snake(diff.endpoint)}", release.signature.task == "regression"
        columns = next((one.columns for one in warehouse.tables() if one.name == f"interlock.{table}"), {})
        output = "out_value" if numbers else "out_label"
        self._any = output in columns and bool(release.revisions)
        self._given: dict[str, Any] = {
            "first": first, "revisions": list(release.revisions), "live": release.champion.package_digest,
            "shadow": release.shadow.package_digest, "arm": release.shadow.name,
            "after_is_live": release.champion.package_digest == diff.after.subject["package_digest"],
        } | ({"tolerance": diff.tolerance} if numbers else {})  # fmt: skip
        slices = []
        for i, name in enumerate(dict.fromkeys(one["column"] for one in diff.changes.slices)):
            if f"in_{name}" in columns:
                values = [one["value"] for one in diff.changes.slices if one["column"] == name]
                self._given |= {f"name_{i}": name, f"values_{i}": values}
                slices.append(SLICE.replace("_I", f"_{i}").replace("COLUMN", quoted(f"in_{name}")))
        said = output if numbers else f"{output}::varchar"
        sql = (
            PAIRS.replace("PREDICTIONS", table).replace("OUTPUT", said).replace("MOVE", NUMBERS if numbers else LABELS)
        )
        self._sql = sql.replace("SLICES", ", ".join(slices))

    def count(self) -> dict[datetime, Counts]:
        """By hour of receipt."""
        found: dict[datetime, Counts] = {}
        for row in self._ask(COUNT):
            counts = found.setdefault(row["hour"].replace(tzinfo=UTC), {})
            counts[row["what"]] = [row["rows"], row["paired"], row["changed"]]
        return found

    def examples(self, each: int) -> list[dict[str, Any]]:
        """The newest rows that were decided otherwise, so many of each direction: prediction_id, row, before, after."""
        return self._ask(EXAMPLES, each=each)

    def _ask(self, sql: str, **more: int) -> list[dict[str, Any]]:
        return self._warehouse.query(self._sql + sql, {**self._given, **more}).to_pylist() if self._any else []
