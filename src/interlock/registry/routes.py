"""Route documents: signed files that say what an endpoint serves. `<revision>.dsse.json` and `current` are the truth."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from interlock.core.assignment import BUCKETS, Ranges, owner_table, share
from interlock.core.clock import parse_time
from interlock.core.errors import Conflict, NotApproved, NotFound, Tampered
from interlock.core.files import write_atomic, write_new
from interlock.core.hashing import digest
from interlock.core.policy import Risk
from interlock.core.settings import Name
from interlock.core.signing import PrivateKey, seal
from interlock.core.trust import Role, TrustedKey, TrustRoot
from interlock.registry.packages import package_hex

ROUTE_TYPE = "application/vnd.interlock.route+json"
CHAMPION = "champion"
RULES = 64
"""As many rules an endpoint may have."""


class Arm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One served version and the buckets it owns."""

    name: Name
    model: Name
    version: int
    package_digest: str
    label: str
    replicas: tuple[str, ...]
    """Names `<digest12>-<n>`; a socket each, so a restart makes no revision."""
    ranges: Ranges = ()

    def is_named(self, name: str) -> bool:
        """Whether ACTIVE_MODEL or a rule means this one: by the arm's name, or by the version's."""
        return name in (self.name, str(self.version), f"{self.model}:{self.version}")


class Standby(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The previous champion, kept warm for one step back."""

    model: Name
    version: int
    package_digest: str
    label: str
    replicas: tuple[str, ...]


class Shadow(Standby, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A version that is asked every question too, and whose answers no client sees."""

    name: Name


class ExperimentRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Salt and phase of the assignment; `id` is empty while no experiment runs."""

    salt: str
    phase: int = 1
    id: str = ""
    unit: str = ""


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="upper"):
    """The endpoint's parameters: changed live, or pinned by a gateway's environment."""

    activate: bool = True
    active_model: str = ""
    timeout_second: Annotated[float, msgspec.Meta(gt=0, le=600)] = 2.0
    retry: Annotated[int, msgspec.Meta(ge=0, le=5)] = 1
    threshold: float = 0.5
    fallback: dict[str, Any] | str = "error"
    log_inputs: str = "all"
    max_concurrency: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1000
    """Requests under way in one gateway worker; more are shed with 429."""
    on_revoked: Literal["standby", "fallback"] = "standby"
    """Who answers when the champion loses its approval: the one before it, or the fixed fallback (else an error)."""
    on_expiry: Literal["freeze", "stop"] = "freeze"
    """What an approval that ends does to an arm: it keeps serving and gets no more than it has, or it is closed."""


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What happens instead of the arm's answer when a condition holds; the first that holds counts."""

    name: Name
    when: str
    """In CEL; see `model.cel`."""
    then: Literal["refuse", "answer", "use", "fallback"]
    reason: str = ""
    """What a refused client reads."""
    output: dict[str, Any] | None = None
    """`answer`: the outputs of every row; a binary `score` alone brings its label along."""
    arm: str = ""
    """`use`: who answers."""


class Override(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What holds again when an emergency change, past its quorum, has come to its end."""

    until: str
    parameters: Parameters
    rules: tuple[Rule, ...]


class RouteDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole content of one revision."""

    format: int
    endpoint: Name
    revision: int
    arms: tuple[Arm, ...]
    experiment: ExperimentRef
    parameters: Parameters
    author: str
    reason: str
    time: str
    previous: str | None
    """Digest of the previous revision's file."""
    allow_version_pin: bool = False
    allow_narrower: bool = False
    """Whether tensors of a datatype that widens without loss are taken, and counted."""
    standby: Standby | None = None
    shadows: tuple[Shadow, ...] = ()
    rules: Annotated[tuple[Rule, ...], msgspec.Meta(max_length=RULES)] = ()
    risk: Risk | None = None
    """The class of the change of parameters or rules that this revision makes; None: low."""
    diff: str | None = None
    """Digest of the decision diff that it was signed under."""
    override: Override | None = None
    """Parameters and rules are an emergency's, by an operator and another person with the role admin."""

    @property
    def subjects(self) -> tuple[str, ...]:
        """What the policy's limits may name: the endpoint, and its model."""
        return (self.endpoint, *(arm.model for arm in self.arms[:1]))

    @property
    def reviewed(self) -> RouteDocument:
        """With the parameters and rules that hold without the override, where there is one."""
        if self.override is None:
            return self
        return msgspec.structs.replace(self, parameters=self.override.parameters, rules=self.override.rules)

    def at(self, now: datetime) -> RouteDocument:
        """As it holds at that time."""
        return self if self.override is None or now < parse_time(self.override.until) else self.reviewed

    def arm(self, name: str) -> Arm:
        """The arm of that name.

        Raises:
            NotFound: it has none.
        """
        for arm in self.arms:
            if arm.name == name:
                return arm
        there = ", ".join(arm.name for arm in self.arms) or "none"
        raise NotFound(f"endpoint {self.endpoint} has no arm {name} (there: {there})")

    def names(self) -> set[str]:
        """What ACTIVE_MODEL may say: an arm, or the version of one."""
        return {name for arm in self.arms for name in (arm.name, str(arm.version), f"{arm.model}:{arm.version}")}

    def replicas(self) -> dict[str, str]:
        """Every replica that must live and may answer clients, with its package digest; the standby's too."""
        standby = (self.standby,) if self.standby else ()
        return {name: one.package_digest for one in (*standby, *self.arms) for name in one.replicas}

    def most(self, package_digest: str) -> int | None:
        """As many of the buckets as a package may get; None: the route does not name it."""
        if package_digest not in {**self.replicas(), **self.shadow_replicas()}.values():
            return None
        used = {rule.arm for rule in self.rules} | {self.parameters.active_model}
        mine = [arm for arm in self.arms if arm.package_digest == package_digest]
        every = any(arm.is_named(name) for arm in mine for name in used)
        return BUCKETS if every else sum(share(arm.ranges) for arm in mine)

    def shadow_replicas(self) -> dict[str, str]:
        """Every replica that is only ever a shadow, with its package digest."""
        return {name: one.package_digest for one in self.shadows for name in one.replicas}


def replica_name(package_digest: str, number: int, *, shadow: bool = False) -> str:
    """`<first 12 hex digits>-<n>`; a shadow's `-s<n>`, so that it never shares a server with an arm."""
    return f"{package_hex(package_digest)[:12]}-{'s' if shadow else ''}{number}"


def signed_route(data: bytes, trust: TrustRoot, what: str) -> tuple[RouteDocument, tuple[TrustedKey, ...]]:
    """Verify bytes, form, buckets and the signers' roles; says nothing of whether these are enough, or valid.

    Raises:
        Tampered: altered, unknown format, or buckets that do not add up.
        NotApproved: a signer may not release.
    """
    payload, keys = trust.unseal_by(data, ROUTE_TYPE, what)
    if not isinstance(payload, dict) or payload.get("format") != 1:
        raise Tampered(f"{what} has an unknown format; this version reads format 1")
    try:
        route = msgspec.convert(payload, RouteDocument)
        if route.arms:
            owner_table({arm.name: arm.ranges for arm in route.arms})
        for time in (route.time, route.override.until if route.override else route.time):
            parse_time(time)
    except (msgspec.ValidationError, ValueError) as error:
        raise Tampered(f"{what}: {error}") from error
    roles: tuple[Role, ...] = ("operator", "route", "admin") if route.override else ("operator", "route")
    for key in keys:
        if not set(roles) & set(key.roles):
            raise NotApproved(f"{what} is signed by {key.name}, who has not the role {' or '.join(roles)}")
    return route, keys


def lacking(route: RouteDocument, keys: Sequence[TrustedKey], trust: TrustRoot) -> str:
    """What a revision with the signatures of these keys lacks before anybody may obey it; empty: nothing.

    People are owners. A service's key (role route) counts for one, and not at all for the class high. An override takes an
    operator and another person with the role admin, and ends as soon as the policy says.
    """
    people, admins = ({key.owner for key in keys if role in key.roles} for role in ("operator", "admin"))
    if route.override is None:
        risk, services = route.risk or "low", {key.owner for key in keys} - people
        count, needed = len(people) + bool(services and risk != "high"), trust.policy.operators_of(risk)
        return "" if count >= needed else f"{count} of the {needed} signatures of operators that the class {risk} needs"
    hours = trust.policy.limits_of(*route.subjects).override_hours
    if parse_time(route.override.until) > parse_time(route.time) + timedelta(hours=hours):
        return f"an override that ends on {route.override.until}, and the policy allows {hours:g} hours"
    if people and admins and len(people | admins) > 1:
        return ""
    names = ", ".join(key.name for key in keys)
    return f"an override by {names}, and it takes an operator and another person with the role admin"


def open_route(data: bytes, trust: TrustRoot, what: str, *, past: bool = False) -> RouteDocument:
    """Verify a route document, and that enough people signed it with keys that were valid then.

    `past`: for those who read what was, and do not act on it; keys that were revoked since then count, and nobody is missing.

    Raises:
        Tampered, NotApproved: see `signed_route`, `lacking`.
    """
    route, keys = signed_route(data, trust, what)
    if past:
        return route
    for key in keys:
        if not key.valid_at(parse_time(route.time)):
            raise NotApproved(f"{what}: the key of {key.name} was not valid on {route.time}")
    if missing := lacking(route, keys, trust):
        step = f"make the change again, and let the others sign it: interlock params {route.endpoint}"
        raise NotApproved(f"{what} has {missing}", next=step)
    return route


class RouteStore:
    """The route documents of all endpoints on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def endpoints(self) -> list[str]:
        """Endpoints that have a current revision."""
        return sorted(path.parent.name for path in self.folder.glob("*/current"))

    def path(self, endpoint: str, revision: int) -> Path:
        """The file of a revision."""
        return self.folder / endpoint / f"{revision}.dsse.json"

    def current(self, endpoint: str) -> int:
        """The current revision's number; 0 = the endpoint does not exist.

        Raises:
            Tampered: the pointer holds no number.
        """
        try:
            text = (self.folder / endpoint / "current").read_text(encoding="ascii")
        except FileNotFoundError:
            return 0
        if not text.strip().isdigit():
            raise Tampered(f"routes/{endpoint}/current holds no revision number")
        return int(text)

    def read(
        self, endpoint: str, trust: TrustRoot, revision: int | None = None, *, past: bool = False
    ) -> RouteDocument:
        """A verified revision; None = the current one. `past`: see `open_route`.

        Raises:
            NotFound: the endpoint or the revision does not exist.
            Tampered, NotApproved: see `open_route`; also a document that lies under another name or number.
        """
        number = self.current(endpoint) if revision is None else revision
        what = f"route {endpoint} revision {number}"
        try:
            data = self.path(endpoint, number).read_bytes()
        except FileNotFoundError:
            known = ", ".join(self.endpoints()) or "none"
            raise NotFound(
                f"no {what} (endpoints: {known})",
                next="deploy a version: interlock deploy MODEL:V --to ENDPOINT --as champion",
            ) from None
        route = open_route(data, trust, what, past=past)
        if (route.endpoint, route.revision) != (endpoint, number):
            raise Tampered(f"{what} says it is {route.endpoint} revision {route.revision}")
        return route

    def held_since(self, route: RouteDocument, package_digest: str, trust: TrustRoot) -> datetime:
        """Since when the endpoint, which has named a package ever since, has once let it have as much as `route` does.

        `route` is a revision, or one that is about to be written.
        """
        wanted, since, number = route.most(package_digest) or 0, route.time, route.revision - 1
        while self.path(route.endpoint, number).exists():
            before = self.read(route.endpoint, trust, number, past=True).reviewed
            had = before.most(package_digest)
            if had is None:
                break
            since, number = before.time if had >= wanted else since, number - 1
        return parse_time(since)

    def digest_of(self, endpoint: str, revision: int) -> str | None:
        """Digest of a revision's file; None for revision 0."""
        return digest(self.path(endpoint, revision).read_bytes()) if revision else None

    def holds(self, route: RouteDocument, trust: TrustRoot) -> bool:
        """Whether gateways take a revision now: a key that signed it may have been revoked since then."""
        try:
            self.read(route.endpoint, trust, route.revision)
        except NotApproved:
            return False
        return True

    def signers(self, route: RouteDocument, trust: TrustRoot) -> list[str]:
        """Names of the keys that signed a revision."""
        data = self.path(route.endpoint, route.revision).read_bytes()
        return sorted(key.name for key in signed_route(data, trust, f"route {route.endpoint} {route.revision}")[1])

    def write(self, route: RouteDocument, *keys: PrivateKey) -> None:
        """Sign and publish the next revision; see `publish`."""
        self.publish(route, seal(route, ROUTE_TYPE, *keys))

    def publish(self, route: RouteDocument, data: bytes) -> None:
        """Put the next revision in force, `data` being what was signed.

        Raises:
            Conflict: somebody else wrote this revision first.
        """
        if route.revision != self.current(route.endpoint) + 1:
            raise Conflict(
                f"route {route.endpoint} is at revision {self.current(route.endpoint)} by now",
                next="look again and repeat",
            )
        try:
            write_new(self.path(route.endpoint, route.revision), data)
        except FileExistsError:
            raise Conflict(
                f"route {route.endpoint} revision {route.revision} was written by somebody else",
                next="look again and repeat",
            ) from None
        write_atomic(self.folder / route.endpoint / "current", f"{route.revision}\n".encode())
