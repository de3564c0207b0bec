"""The proof that the log is whole, from what is in the warehouse: nothing doubled, nothing missing, no number lost.

Every gateway incarnation numbers the requests of an endpoint at receipt, from 1, and says from time to time how far it
is. So a number without a row is either a request that was under way when the incarnation ended, which got no answer, or a
loss. It can only have been under way if it was received at most `patience` seconds before the last sign of life.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from interlock.core.project import snake

Query = Callable[[str, Mapping[str, Any]], list[dict[str, Any]]]
"""SQL over the warehouse with `$name` parameters → rows. `interlock` is the schema."""


class Held(msgspec.Struct, frozen=True):
    """An answer that a client holds; `rows` = 0: it does not say how many rows it had."""

    prediction_id: str
    rows: int = 0


class Incarnation(msgspec.Struct, frozen=True):
    """One gateway worker from its start to its end."""

    gateway: str
    last_seq: int
    """The highest number that is known to be given out."""
    recorded: int
    final: bool
    """It said that nothing comes after."""
    lost: int
    in_flight: int
    """Numbers without a row that were under way at its end, or have not reached the warehouse yet."""


class Reconciliation(msgspec.Struct, frozen=True):
    """What was found. The log is whole when `missing`, `duplicates`, `incomplete` and `lost` are all nothing."""

    endpoint: str
    predictions: int
    rows: int
    duplicates: int
    """Rows beyond the first with the same prediction, row and role."""
    incomplete: int
    """Predictions whose rows are not 0..n-1."""
    lost: int
    in_flight: int
    checked: int
    """Ids that were compared."""
    missing: int
    """Of these: not there, or not with all their rows."""
    missing_ids: tuple[str, ...]
    gateways: tuple[Incarnation, ...]

    @property
    def whole(self) -> bool:
        """Whether the proof holds."""
        return not (self.missing or self.duplicates or self.incomplete or self.lost)


# One row: what is there, and what is wrong with it in itself.
COUNTS = """
with predictions as (
    select prediction_id, role, count(*) as rows, count(distinct "row") as distinct_rows, min("row") as first, max("row") as last
    from interlock.PREDICTIONS group by prediction_id, role
)
select count(*) filter (role = 'live') as predictions,
       coalesce(sum(rows) filter (role = 'live'), 0)::bigint as rows,
       coalesce(sum(rows - distinct_rows), 0)::bigint as duplicates,
       count(*) filter (first <> 0 or last <> distinct_rows - 1) as incomplete
from predictions
"""

# A gap before a row was received when that row was, at the latest; one behind the last row, when the first heartbeat that
# counts it was written. The last sign of life is the last row's answer or the last heartbeat.
SEQUENCES = """
with numbered as (
    select gateway, seq, min(received_at) as received_at,
           max(received_at + to_microseconds((latency_ms * 1000)::bigint)) as answered_at
    from interlock.PREDICTIONS where role = 'live' group by gateway, seq
), beats as (
    select gateway, last_seq, "at", final from interlock.gateways where endpoint = $endpoint
), ends as (
    select gateway, max(last_seq) as last_seq, max(alive_at) as alive_at, bool_or(final) as final from (
        select gateway, seq as last_seq, answered_at as alive_at, false as final from numbered
        union all by name
        select gateway, last_seq, "at" as alive_at, final from beats
    ) group by gateway
), gaps as (
    select gateway, seq - lag(seq, 1, 0) over (partition by gateway order by seq) - 1 as missing, received_at from numbered
    union all by name
    select gateway, last_seq - greatest(lag(last_seq, 1, 0) over (partition by gateway order by "at", last_seq), seen) as missing,
           "at" as received_at
    from beats join (
        select ends.gateway, coalesce(max(seq), 0) as seen from ends left join numbered using (gateway) group by ends.gateway
    ) using (gateway)
)
select ends.gateway::varchar as gateway, any_value(ends.last_seq) as last_seq, any_value(ends.final) as final,
       (select count(*) from numbered where numbered.gateway = ends.gateway) as recorded,
       coalesce(sum(missing) filter (ends.final or received_at + to_microseconds($patience_us) < alive_at), 0)::bigint as lost,
       coalesce(sum(missing), 0)::bigint as missing
from ends left join gaps on gaps.gateway = ends.gateway and missing > 0
group by ends.gateway order by ends.gateway
"""

NO_HEARTBEATS = """
(select null::uuid as gateway, null as endpoint, 0 as last_seq, null::timestamptz as "at", false as final where false)
"""

# Ids that a client holds, which are not there with all their rows.
MISSING = """
select held.prediction_id from (
    select unnest($ids) as prediction_id, unnest($rows) as rows
) as held left join (
    select prediction_id, count(distinct "row") as rows
    from interlock.PREDICTIONS where role = 'live' group by prediction_id
) as kept on kept.prediction_id = try_cast(held.prediction_id as uuid)
where kept.rows is null or (held.rows > 0 and kept.rows <> held.rows)
"""


def reconcile(
    query: Query, endpoint: str, held: Iterable[Held] = (), *, patience: float = 5.0, heartbeats: bool = True
) -> Reconciliation:
    """Compare the warehouse with what gateways numbered and clients hold; `patience` in seconds, see above.

    `heartbeats`: whether the table `gateways` is there; it comes with the first one.
    """
    sequences = SEQUENCES if heartbeats else SEQUENCES.replace("interlock.gateways", NO_HEARTBEATS)

    def ask(sql: str, **parameters: Any) -> list[dict[str, Any]]:
        return query(sql.replace("PREDICTIONS", f"predictions_{snake(endpoint)}"), parameters)

    ids = list(held)
    counts = ask(COUNTS)[0]
    gateways = tuple(
        Incarnation(
            gateway=row["gateway"],
            last_seq=row["last_seq"],
            recorded=row["recorded"],
            final=row["final"],
            lost=row["lost"],
            in_flight=row["missing"] - row["lost"],
        )
        for row in ask(sequences, endpoint=endpoint, patience_us=round(patience * 1e6))
    )
    missing = ask(MISSING, ids=[one.prediction_id for one in ids], rows=[one.rows for one in ids]) if ids else []
    return Reconciliation(
        endpoint=endpoint,
        **counts,
        lost=sum(one.lost for one in gateways),
        in_flight=sum(one.in_flight for one in gateways),
        checked=len(ids),
        missing=len(missing),
        missing_ids=tuple(row["prediction_id"] for row in missing),
        gateways=gateways,
    )


def read_held(text: str) -> list[Held]:
    """Ids as a client kept them: one a line, or JSON lines with `prediction_id` and, if it wants, `rows`.

    Raises:
        ValueError: a line is neither.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        word = line.strip()
        if word.startswith("{"):
            try:
                found.append(msgspec.json.decode(word, type=Held))
            except msgspec.DecodeError as error:
                raise ValueError(f"line {number}: {error}") from error
        elif word:
            found.append(Held(word))
    return found
