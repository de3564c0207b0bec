"""Tables of the control database. Times are ISO 8601 text in UTC (`core.clock.iso`), structured values are JSON text.

Signed files are the truth for trust, approvals and routes; the database only indexes routes.
"""

from __future__ import annotations

from sqlalchemy import Column, Float, ForeignKey, Index, Integer, MetaData, Table, Text, UniqueConstraint

metadata = MetaData()

versions = Table(
    "versions",
    metadata,
    Column("model", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("package_digest", Text, nullable=False, unique=True),
    Column("release", Integer, nullable=False, default=0),
    Column("interface", Integer, nullable=False),
    Column("logic", Integer, nullable=False),
    Column("data", Integer, nullable=False),
    Column("split", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("run_id", Text, nullable=False, unique=True),
    Column("created_at", Text, nullable=False),
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", Text, nullable=False, unique=True),
    Column("package_digest", Text, nullable=False, index=True),
    Column("against_digest", Text),
    Column("created_at", Text, nullable=False),
    Column("report", Text, nullable=False),
)

evidence = Table(
    "evidence",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("digest", Text, nullable=False, unique=True),
    Column("package_digest", Text, nullable=False, index=True),
    Column("against_digest", Text),
    Column("created_at", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("document", Text, nullable=False),
)

review_notes = Table(
    "review_notes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("package_digest", Text, nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("about", Text),
    Column("untold", Text),
)
"""Comments, and news of decisions, whose truth is the signed files. `about`: the digest of what was looked at.
`untold`: the channels that have not taken the news."""

runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("schedule", Text),
    Column("created_at", Text, nullable=False),
    Column("started_at", Text),
    Column("ended_at", Text),
    Column("error", Text),
    Column("version", Integer),
    Column("priority", Integer, nullable=False),
    Column("origin", Text),
    Column("validation", Text),
    Column("untold", Text),
)
"""`origin`: the run whose steps this one took over. `untold`: the channels that have not taken the news of its failure."""

steps = Table(
    "steps",
    metadata,
    Column("run_id", Text, ForeignKey("runs.id"), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("name", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("state", Text, nullable=False),
    Column("started_at", Text, nullable=False),
    Column("ended_at", Text),
    Column("pid", Integer),
    Column("error", Text),
    Column("log", Text, nullable=False),
    Column("peak_mb", Float),
)

schedules = Table(
    "schedules",
    metadata,
    Column("name", Text, primary_key=True),
    Column("cron", Text, nullable=False),
    Column("zone", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("catch_up", Text, nullable=False),
    Column("seen_at", Text, nullable=False),
)
"""`seen_at`: every tick up to here is dealt with."""

ticks = Table(
    "ticks",
    metadata,
    Column("schedule", Text, primary_key=True),
    Column("tick_at", Text, primary_key=True),
    Column("run_id", Text),
    Column("state", Text, nullable=False),
)

extracts = Table(
    "extracts",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("sql", Text, nullable=False),
    Column("variables", Text, nullable=False),
    Column("snapshot", Integer, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("path", Text, nullable=False),
    Column("created_at", Text, nullable=False),
)

routes = Table(
    "routes",
    metadata,
    Column("endpoint", Text, primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("time", Text, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("before", Text),
    Column("after", Text),
    Column("reason", Text, nullable=False),
    Column("previous", Text, nullable=False),
    Column("hash", Text, nullable=False, unique=True),
    Column("origin", Text),
)

experiments = Table(
    "experiments",
    metadata,
    Column("id", Text, primary_key=True),
    Column("endpoint", Text, nullable=False, index=True),
    Column("policy", Text, nullable=False),
    Column("policy_digest", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("started_at", Text, nullable=False),
    Column("started_by", Text, nullable=False),
    Column("decided_at", Text),
    Column("decided_by", Text),
    Column("decision", Text),
    Column("reason", Text),
    Column("result", Text),
)

readings = Table(
    "readings",
    metadata,
    Column("endpoint", Text, primary_key=True),
    Column("monitor", Text, primary_key=True),
    Column("slice", Text, primary_key=True),
    Column("window_start", Text, primary_key=True),
    Column("window", Text, nullable=False),
    Column("value", Float),
    Column("threshold", Float, nullable=False),
    Column("n", Integer, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("version", Integer),
    Column("at", Text, nullable=False),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("endpoint", Text, nullable=False),
    Column("monitor", Text, nullable=False),
    Column("slice", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("window_start", Text, nullable=False),
    Column("value", Float),
    Column("threshold", Float, nullable=False),
    Column("n", Integer, nullable=False),
    Column("detail", Text, nullable=False),
    Column("version", Integer),
    Column("since", Text, nullable=False),
    Column("changed_at", Text, nullable=False),
    Column("changed_by", Text, nullable=False),
    Column("silenced_until", Text),
    Column("open", Integer),
    Column("untold", Integer),
    UniqueConstraint("endpoint", "monitor", "slice", "open", name="one_open_alert"),
)
"""`open` is 1 while the alert is open and null afterwards: null never collides, so the database itself keeps one open alert.
`untold` is 1 while the webhook has not taken the present state."""

Index("runs_by_state", runs.c.state)
Index("evaluations_by_time", evaluations.c.created_at)
