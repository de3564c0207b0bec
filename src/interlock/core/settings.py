"""What `interlock.toml` may say, as structs; file < environment `INTERLOCK_<SECTION>__<KEY>` < flag.

An unknown key, a wrong type or a missing section is refused with its place in the file.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from interlock.core.errors import Misconfigured
from interlock.core.freeze import FreezeSettings

Logical = Literal["float", "int", "bool", "string", "category", "timestamp"]
Task = Literal["binary", "multiclass", "regression"]
Mode = Literal["solo", "team"]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=63)]
Fraction = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class InputSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One raw input: its logical type and what may be in it."""

    type: Logical
    nullable: bool = False
    unseen: Literal["allow", "refuse"] = "allow"
    categories: tuple[str, ...] = ()
    """A closed list for `category`; empty = open, the training values are the known ones."""
    zone: str = "UTC"
    """IANA zone in which a `timestamp` reaches the feature function."""
    min: float | None = None
    max: float | None = None
    """Bounds of a `float` or `int` in training data, both included; requests are not held against them."""


class ExtractSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The named, versioned question to the warehouse that a model is trained on."""

    sql: str
    id: str
    event_time: str
    label: str
    variables: dict[str, str | int | float | bool] = {}
    """Values of `$name` in the SQL; `train --var name=value` overrides one."""


class SplitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How rows part into train, validation (seen by the recipe) and test (held out)."""

    kind: Literal["time", "group", "random"] = "time"
    validation: Fraction = 0.1
    test: Fraction = 0.2
    group: str = ""
    """Column of the extract whose values stay together (`kind = "group"`); also the cluster of paired intervals."""
    seed: int = 7


class ValidationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What training data must be; types, nulls, ranges, ids and copies are always looked at."""

    volume_min: Annotated[float, msgspec.Meta(ge=0)] = 0.5
    volume_max: Annotated[float, msgspec.Meta(ge=1)] = 2.0
    """Rows as a share of those of the last run that succeeded on this extract."""
    time_overlap: bool = False
    """Whether training rows from the time of the test rows fail a run; a split by time has none."""
    group_overlap: bool = False
    """Whether training rows of a group that test rows have fail a run; a split by group has none."""
    accept: tuple[str, ...] = ()
    """Findings that are known and fail nothing: `volume`, or of one column `label_copy:amount`."""


class EndpointSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What serving needs to know of this model's endpoint."""

    unit: str = ""
    """What a `unit_id` is, in a word: `tailnum`, `customer`."""
    threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5
    owner: str = ""
    playbook: str = ""
    layout: Literal["columns", "matrix"] = "columns"
    timeout_second: Annotated[float, msgspec.Meta(gt=0, le=600)] = 2.0
    retry: Annotated[int, msgspec.Meta(ge=0, le=5)] = 1
    expected_rate: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Requests a second at which a version is load-tested; absent = the mean of the busiest hour in the log."""
    fallback: dict[str, Any] | None = None
    """A fixed output answered with 200 when the model cannot answer; absent = errors are errors."""
    feedback_days: Annotated[float, msgspec.Meta(gt=0, le=3650)] = 30.0
    """So long before its `at` lies the prediction, at the most, that feedback by unit is about."""
    allow_version_pin: bool = False
    allow_narrower: bool = False


class MetricSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A metric of the experiment, in SQL over the endpoint's `outcomes` view, summed per unit."""

    name: Name
    numerator: str
    denominator: str = "1"
    kind: Literal["mean", "ratio", "proportion"] = "ratio"
    direction: Literal["lower", "higher"] = "lower"
    role: Literal["success", "guardrail"] = "success"
    margin: float = 0.0
    """Guardrails: how much worse, as a share of the champion's value, is still no harm."""


class ExperimentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The policy that is frozen and hashed when an experiment starts."""

    metrics: tuple[MetricSettings, ...] = ()
    alpha: Fraction = 0.05
    expected_units: int = 2000
    min_units: int = 200
    min_hours: float = 0.0
    max_hours: float = 24.0 * 28


class MonitorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One watch on the log."""

    kind: Literal["drift", "score", "class", "volume", "skew"]
    window: Literal["hour", "day", "week", "month"] = "day"
    inputs: tuple[str, ...] = ()
    """Raw inputs to compare (`drift`); empty = all."""
    threshold: float | None = None
    """Above which it alerts; absent = 0.2, of `skew` 0.01."""
    min_n: int = 500

    @property
    def limit(self) -> float:
        """The threshold that holds."""
        return self.threshold if self.threshold is not None else 0.01 if self.kind == "skew" else 0.2


class SkewSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a logged request is found again among the rows of the extract."""

    key: str = "request_id"
    """What equals the extract's `id`: `request_id`, `unit_id`, or the name of a raw input."""
    variables: dict[str, str | int | float | bool] = {}
    """Values of `$name` in place of those of the training rows, which mostly end before the requests begin."""


class CostSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a row of each outcome costs at the deployed threshold: true and false, positive and negative labels."""

    tp: float = 0.0
    fp: float = 0.0
    fn: float = 0.0
    tn: float = 0.0


class EvaluationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an evaluation looks at besides the metrics."""

    cost: CostSettings | None = None
    sensitive: str = ""
    """Column of the extract that must not decide (binary tasks); empty = none is looked at."""


class StandardRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a number of the evidence must be; where it has an interval, the end that is nearer to the limit counts."""

    metric: str
    """A metric of the evaluation, or another number that docs/reference/standard.md names."""
    min: float | None = None
    max: float | None = None
    margin: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """Metrics: how much worse than the champion's is still no harm; where neither way is better, how far from it."""
    slices: bool = False
    """Metrics: whether it holds in every slice of at least `min_n` rows too."""
    min_n: Annotated[int, msgspec.Meta(ge=100)] = 100

    def __post_init__(self) -> None:
        """Refuse a rule that says nothing, as ValueError, so that the place in the file is named."""
        if self.min is self.max is self.margin is None:
            raise ValueError(f"the rule on {self.metric!r} needs min, max or margin")


class StandardSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The release standard: what a version must show before it is approved, and when nothing new is released."""

    require: tuple[Literal["diff", "loadtest", "skew"], ...] = ()
    """Evidence that must be there although no rule reads a number of it."""
    rules: tuple[StandardRule, ...] = ()
    soak_hours: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """So long a champion serves before another version gets traffic of its endpoint."""
    freeze: tuple[FreezeSettings, ...] = ()


class TrustSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which root key this project believes."""

    root: str
    """`sha256:` fingerprint of the root key's SPKI."""


class ServeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Addresses, workers and durability of `interlock up`."""

    host: str = "127.0.0.1"
    control_port: Port = 8400
    gateway_port: Port = 8080
    grpc_port: Port = 8081
    """The gateways' gRPC."""
    gateways: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    fsync: Literal["never", "interval", "always"] = "interval"
    reserve_mb: int = 256
    """Free disk that the journal never touches: requests are refused before it is used up."""
    monitor_seconds: float = 60.0
    anonymous: tuple[Name, ...] = ()
    """Endpoints that answer without an API key although `host` is not loopback."""
    webhook: str = ""
    """Alerts are posted there as JSON; empty = nowhere."""


class JobsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many runs may wait, who hears of failed ones, and how long their files stay."""

    waiting: Annotated[int, msgspec.Meta(ge=1)] = 100
    """Open runs beyond which no further one is taken."""
    keep_days: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    """So long after a run's end its logs and its steps' results stay; its records stay for ever."""
    webhook: str = ""
    """Failed runs are posted there as JSON; empty = nowhere."""
    mail: tuple[str, ...] = ()
    """Addresses that get a mail of a failed run, through `[mail] server`."""


class ReviewSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an approval has to tick off, and who hears of what waits for a review."""

    checklist: tuple[str, ...] = ()
    """An approval names all of them; empty = there is none."""
    webhook: str = ""
    """News of reviews are posted there as JSON; empty = nowhere."""
    mail: tuple[str, ...] = ()
    """Addresses that get a mail of them, through `[mail] server`."""


class MailSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How mail leaves."""

    server: str = ""
    """`HOST:PORT`."""
    sender: str = "interlock@localhost"
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str = ""
    """Empty = no login."""
    password: str = ""
    """Give it by the environment: INTERLOCK_MAIL__PASSWORD."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of `interlock.toml`."""

    model: Name
    recipe: str
    extract: ExtractSettings
    inputs: dict[str, InputSettings | Logical]
    mode: Mode = "team"
    positive: str | int | bool | None = None
    """Binary: the label's value whose probability is the score. Default: true, 1, or the last in order."""
    extracts: dict[str, ExtractSettings] = {}
    split: SplitSettings = SplitSettings()
    validation: ValidationSettings = ValidationSettings()
    slices: tuple[str, ...] = ()
    """Columns whose values are evaluated one by one; default: the first two categories of at most 30 values."""
    parameters: dict[str, Any] = {}
    requirements: tuple[str, ...] = ()
    """Further packages that the feature function needs, by name."""
    endpoint: EndpointSettings = EndpointSettings()
    experiment: ExperimentSettings = ExperimentSettings()
    monitors: tuple[MonitorSettings, ...] = ()
    evaluation: EvaluationSettings = EvaluationSettings()
    skew: SkewSettings = SkewSettings()
    standard: StandardSettings | None = None
    """Absent = versions are held against no standard."""
    trust: TrustSettings | None = None
    serve: ServeSettings = ServeSettings()
    jobs: JobsSettings = JobsSettings()
    mail: MailSettings = MailSettings()
    review: ReviewSettings = ReviewSettings()

    def input(self, name: str) -> InputSettings:
        """The raw input's settings, the short form `name = "float"` spelled out."""
        found = self.inputs[name]
        return InputSettings(type=found) if isinstance(found, str) else found

    def extract_named(self, name: str) -> ExtractSettings:
        """The extract `name`; empty = the default one."""
        if not name:
            return self.extract
        if name not in self.extracts:
            known = ", ".join(self.extracts) or "none"
            raise Misconfigured(f"no extract [extracts.{name}] in interlock.toml (there: {known})")
        return self.extracts[name]


def load_settings(path: Path, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read `interlock.toml` under the environment's overrides.

    Raises:
        Misconfigured: no such file, no TOML, an unknown key or a wrong type; the message names the place.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Misconfigured(f"no {path.name} in {path.parent}", next="make a project: interlock init DIR") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{path.name} is not valid TOML: {error}") from error
    for place, text in _overrides(environment):
        _put(data, place, text)
    try:
        return msgspec.convert(data, Settings, strict=True)
    except msgspec.ValidationError as error:
        raise Misconfigured(f"interlock.toml: {error}", next="see docs/reference/settings.md") from error


_SECTIONS = ("split", "validation", "endpoint", "experiment", "serve", "jobs", "mail", "review", "trust", "parameters")


def _overrides(environment: Mapping[str, str]) -> list[tuple[list[str], str]]:
    """`INTERLOCK_SERVE__GATEWAY_PORT=80` → (["serve", "gateway_port"], "80"); only real sections, PARAM belongs to gateways."""
    found = []
    for name, text in sorted(environment.items()):
        section, separator, key = name.removeprefix("INTERLOCK_").partition("__")
        if name.startswith("INTERLOCK_") and separator and section.lower() in _SECTIONS:
            found.append(([section.lower(), key.lower()], text))
    return found


def _put(data: dict[str, Any], place: list[str], text: str) -> None:
    section = data.setdefault(place[0], {})
    section[place[1]] = parse_value(text)


def parse_value(text: str) -> Any:
    """`true`, `3`, `0.5`, `{"a": 1}` as what they look like; everything else is a string."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
