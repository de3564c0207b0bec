"""The endpoints that this gateway serves, as its verified route documents say; a new revision is taken within a second.

Needs no control plane and no database: signed files are enough. A document that is altered, older than one already seen, or
names a package without a valid approval is refused, and the one before stays in force.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from interlock.core.assignment import BUCKETS, bucket, owner_table, share
from interlock.core.clock import Clock, iso
from interlock.core.errors import InterlockError, NotFound, Tampered, Unavailable, UnknownVersion
from interlock.core.files import write_atomic
from interlock.core.trust import TrustRoot, read_trust
from interlock.gateway.parameters import effective, pins
from interlock.gateway.upstream import Replica
from interlock.model.package import read_manifest
from interlock.model.signature import Signature
from interlock.predlog.record import Field, Schema
from interlock.registry.approvals import read_decisions, require_approval
from interlock.registry.gateways import EndpointStatus
from interlock.registry.packages import PackageStore
from interlock.registry.routes import Arm, Parameters, RouteDocument, RouteStore

POLL_SECONDS = 0.2


class ServedArm(msgspec.Struct, frozen=True):
    """An arm with everything a request needs."""

    arm: Arm
    signature: Signature
    schema: Schema
    replicas: tuple[Replica, ...]
    propensity: float
    approval: str
    known: tuple[tuple[int, str, frozenset[str]], ...]
    """Position, name and known values of the category inputs."""

    def pick(self, tried: list[Replica]) -> Replica:
        """The live replica with the least to do, an untried one first.

        Raises:
            Unavailable: none lives.
        """
        live = [replica for replica in self.replicas if replica.live]
        if not live:
            raise Unavailable(f"no replica of arm {self.arm.name} (version {self.arm.version}) is live")
        return min(live, key=lambda replica: (replica in tried, replica.load))


class Endpoint:
    """One endpoint under one revision. `seq` counts on through all revisions of this gateway incarnation."""

    def __init__(
        self, route: RouteDocument, digest: str, arms: dict[str, ServedArm], pinned: dict[str, tuple[str, str]]
    ) -> None:
        self.route = route
        self.digest = digest
        self.arms = arms
        self.pinned = pinned
        self.parameters: Parameters = effective(route.parameters, pinned)
        self.error: str | None = None
        names = owner_table({name: served.arm.ranges for name, served in arms.items()}) if arms else []
        self._owners = [arms[name] for name in names]
        self._forced = self._find(self.parameters.active_model) if self.parameters.active_model else None

    @property
    def live(self) -> bool:
        """Whether every arm that gets traffic has a live replica."""
        getting = [served for served in self.arms.values() if served.propensity > 0]
        return bool(getting) and all(any(replica.live for replica in served.replicas) for served in getting)

    def choose(self, unit: str, version: str) -> tuple[ServedArm, bool]:
        """The arm for a unit, and whether chance (and not a pin or ACTIVE_MODEL) chose it.

        Raises:
            UnknownVersion: the pinned version is not live, or pinning is not allowed here.
            Unavailable: nothing is deployed.
        """
        if version:
            if not self.route.allow_version_pin:
                raise UnknownVersion(f"endpoint {self.route.endpoint} does not allow to pin a version")
            return self._find(version), False
        if self._forced is not None:
            return self._forced, False
        if not self._owners:
            raise Unavailable(f"nothing is deployed at endpoint {self.route.endpoint}")
        return self._owners[bucket(self.route.experiment.salt, unit)], True

    def _find(self, wanted: str) -> ServedArm:
        for name, served in self.arms.items():
            if wanted in (name, str(served.arm.version), f"{served.arm.model}:{served.arm.version}"):
                return served
        raise UnknownVersion(f"no live arm of endpoint {self.route.endpoint} serves {wanted!r}")

    def status(self) -> EndpointStatus:
        """What this gateway acknowledges."""
        return EndpointStatus(
            revision=self.route.revision,
            digest=self.digest,
            error=self.error,
            arms={name: sum(replica.live for replica in served.replicas) for name, served in self.arms.items()},
            pinned={name: variable for name, (variable, _) in self.pinned.items()},
            parameters=msgspec.to_builtins(self.parameters),
        )


class Endpoints:
    """All endpoints; watches the files and swaps revisions."""

    def __init__(
        self,
        *,
        routes: RouteStore,
        packages: PackageStore,
        approvals: Path,
        trust: Path,
        fingerprint: str,
        sockets: Path,
        seen: Path,
        environment: Mapping[str, str],
        clock: Clock,
    ) -> None:
        self.by_name: dict[str, Endpoint] = {}
        self.last_seq: dict[str, int] = {}
        self.refused: dict[str, str] = {}
        self._routes = routes
        self._packages = packages
        self._approvals = approvals
        self._trust = (trust, fingerprint)
        self._sockets = sockets
        self._seen_file = seen
        self._environment = environment
        self._clock = clock
        self._replicas: dict[str, Replica] = {}
        self._seen: dict[str, tuple[int, str]] = self._read_seen()
        self._looked: dict[str, Any] = {}

    def get(self, name: str) -> Endpoint:
        """The endpoint.

        Raises:
            NotFound: there is none of that name (or none that could be verified).
        """
        found = self.by_name.get(name)
        if found is None:
            why = f": {self.refused[name]}" if name in self.refused else ""
            raise NotFound(f"no endpoint {name!r}{why}")
        return found

    def next_seq(self, name: str) -> int:
        """The number of a request at its receipt, from 1."""
        number = self.last_seq.get(name, 0) + 1
        self.last_seq[name] = number
        return number

    async def watch(self) -> None:
        """Look for new revisions, for ever."""
        while True:
            self.refresh()
            await asyncio.sleep(POLL_SECONDS)

    def refresh(self) -> None:
        """Take what is new on disk."""
        for name in self._routes.endpoints():
            marker = self._marker(name)
            if marker == self._looked.get(name) and name not in self.refused:
                continue
            self._looked[name] = marker
            try:
                self._take(name)
                self.refused.pop(name, None)
            except (InterlockError, OSError) as error:
                self.refused[name] = str(error)
                if name in self.by_name:
                    self.by_name[name].error = str(error)

    def _marker(self, name: str) -> Any:
        """Changes whenever the pointer or the trust root was replaced."""
        stats = [(self._routes.folder / name / "current").stat(), self._trust[0].stat()]
        return [(stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in stats]

    def _take(self, name: str) -> None:
        trust = read_trust(*self._trust)
        route = self._routes.read(name, trust)
        digest = self._routes.digest_of(name, route.revision) or ""
        revision, seen = self._seen.get(name, (0, ""))
        if route.revision < revision or (route.revision == revision and seen and digest != seen):
            if name not in self.by_name and self._routes.path(name, revision).exists():
                self._install(name, self._routes.read(name, trust, revision), seen, trust)
            raise Tampered(
                f"route {name} revision {route.revision} is older than revision {revision}, which was served here"
            )
        self._install(name, route, digest, trust)
        self._remember(name, route.revision, digest)

    def _install(self, name: str, route: RouteDocument, digest: str, trust: TrustRoot) -> None:
        now = self._clock.now()
        arms = {}
        for arm in route.arms:
            manifest = read_manifest(self._packages.find(arm.package_digest), arm.package_digest)
            decisions = read_decisions(self._approvals, arm.package_digest, trust)
            approval = require_approval(decisions, arm.package_digest, manifest.author.name, "serve", trust, now)
            signature = manifest.signature
            arms[arm.name] = ServedArm(
                arm=arm,
                signature=signature,
                schema=_schema(arm.package_digest, signature),
                replicas=tuple(self._replica(replica, signature) for replica in arm.replicas),
                propensity=share(arm.ranges) / BUCKETS,
                approval="self-approved" if approval.predicate.self_approved else "approved",
                known=tuple(
                    (i, one.name, frozenset(one.categories)) for i, one in enumerate(signature.inputs) if one.categories
                ),
            )
        self.by_name[name] = Endpoint(route, digest, arms, pins(name, self._environment))
        self._drop_unused()

    def _replica(self, name: str, signature: Signature) -> Replica:
        if name not in self._replicas:
            self._replicas[name] = Replica(name, self._sockets / name, signature)
        return self._replicas[name]

    def _drop_unused(self) -> None:
        used = {replica.name for one in self.by_name.values() for arm in one.arms.values() for replica in arm.replicas}
        for name in set(self._replicas) - used:
            self._replicas.pop(name).close()

    def _read_seen(self) -> dict[str, tuple[int, str]]:
        if not self._seen_file.exists():
            return {}
        return msgspec.json.decode(self._seen_file.read_bytes(), type=dict[str, tuple[int, str]])

    def _remember(self, name: str, revision: int, digest: str) -> None:
        if self._seen.get(name) != (revision, digest):
            self._seen[name] = (revision, digest)
            write_atomic(self._seen_file, msgspec.json.encode(self._seen))

    def statuses(self) -> dict[str, EndpointStatus]:
        """What to acknowledge, by endpoint; one that could never be verified shows as revision 0 with its error."""
        known = {name: endpoint.status() for name, endpoint in self.by_name.items()}
        for name, error in self.refused.items():
            known.setdefault(name, EndpointStatus(0, "", error, {}, {}, {}))
        return known

    def written_at(self) -> str:
        """The time for the acknowledgement."""
        return iso(self._clock.now())


def _schema(package_digest: str, signature: Signature) -> Schema:
    label = {"BOOL": "bool", "INT64": "int", "FP64": "float", "BYTES": "string"}
    inputs = tuple(Field(spec.name, spec.type) for spec in signature.inputs)
    if signature.task == "regression":
        outputs: tuple[Field, ...] = (Field("value", "float"),)
    else:
        kind: Any = label[signature.label_datatype]
        scores = Field("score", "float") if signature.task == "binary" else Field("probabilities", "floats")
        by_name = {"label": Field("label", kind), scores.name: scores}
        outputs = tuple(by_name[output.name] for output in signature.outputs())
    return Schema(package_digest, inputs, outputs)
