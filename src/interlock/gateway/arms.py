"""An endpoint under one revision of its route: its arms with everything a request needs, and who answers whom."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from interlock.core.assignment import fnv1a32, owner_table, salted_bucket
from interlock.core.errors import Unavailable, UnknownVersion
from interlock.gateway.parameters import effective
from interlock.gateway.rules import Rules
from interlock.gateway.upstream import Replica
from interlock.model.signature import Signature
from interlock.predlog.record import Field, Schema
from interlock.registry.gateways import EndpointStatus
from interlock.registry.routes import CHAMPION, Arm, Parameters, RouteDocument

STANDBY = "standby"
"""Name in the log of the champion before, where it answers for one that lost its approval."""


class ServedArm(msgspec.Struct, frozen=True):
    """An arm with everything a request needs."""

    arm: Arm
    author: str
    """Who trained it: one who may not have approved it."""
    signature: Signature
    schema: Schema
    replicas: tuple[Replica, ...]
    propensity: float
    approval: str
    known: tuple[tuple[int, str, frozenset[str]], ...]
    """Position, name and known values of the category inputs."""
    rules: Rules
    """The endpoint's rules, read with this arm's signature."""
    closed: str = ""
    """Why it may not answer any more: its approval was taken back while it served."""
    ends: datetime | None = None
    """When the first of the approvals ends that it serves by."""

    @property
    def live(self) -> bool:
        """Whether somebody answers."""
        return any(replica.live for replica in self.replicas)

    def pick(self, tried: list[Replica]) -> Replica:
        """The live replica with the least to do, of those not tried yet.

        Raises:
            Unavailable: there is none.
        """
        found, least = None, 0
        for replica in self.replicas:
            if replica.live and replica not in tried and (found is None or replica.load < least):
                found, least = replica, replica.load
        if found is None:
            word = "other replica" if tried else "replica"
            raise Unavailable(f"no {word} of arm {self.arm.name} (version {self.arm.version}) is live")
        return found


class Endpoint:
    """Arms of one revision under the parameters of the same or a newer one."""

    def __init__(
        self,
        route: RouteDocument,
        digest: str,
        arms: dict[str, ServedArm],
        shadows: tuple[ServedArm, ...],
        pinned: dict[str, tuple[str, str]],
    ) -> None:
        self.route = route
        self.digest = digest
        self.arms = arms
        """By name; the stand-by too, where there is one, without units of its own."""
        self.shadows = shadows
        self.pinned = pinned
        self.parameters: Parameters = effective(route.parameters, pinned)
        self.under_way = 0
        names = owner_table({name: served.arm.ranges for name, served in arms.items()}) if arms else []
        self._salt = fnv1a32(route.experiment.salt)
        self._owners = [arms[name] for name in names]
        self._forced = self._find(self.parameters.active_model) if self.parameters.active_model else None

    @property
    def live(self) -> bool:
        """Whether every arm that gets traffic has somebody who may answer and does, be it in its place."""
        getting = [self._open(served) for served in self.arms.values() if served.propensity > 0]
        return bool(getting) and all(served.live and not served.closed for served in getting)

    def choose(self, unit: str, version: str) -> tuple[ServedArm, bool]:
        """The arm for a unit, and whether chance (and not a pin, ACTIVE_MODEL or a closed arm) chose it.

        Raises:
            UnknownVersion: the pinned version is not live, or pinning is not allowed here.
            Unavailable: nothing is deployed.
        """
        if version:
            if not self.route.allow_version_pin:
                raise UnknownVersion(f"endpoint {self.route.endpoint} does not allow to pin a version")
            return self._open(self._find(version)), False
        if self._forced is not None:
            return self._open(self._forced), False
        if not self._owners:
            raise Unavailable(f"nothing is deployed at endpoint {self.route.endpoint}")
        owner = self._owners[salted_bucket(self._salt, unit)]
        return (self._open(owner), False) if owner.closed else (owner, True)  # not chance: outside experiments

    def named(self, name: str) -> ServedArm:
        """The arm that a rule sends a request to.

        Raises:
            Unavailable: it is not in force yet.
        """
        if name not in self.arms:
            raise Unavailable(f"arm {name} of endpoint {self.route.endpoint}, which a rule names, is not there yet")
        return self._open(self.arms[name])

    def _open(self, served: ServedArm) -> ServedArm:
        """The arm, or who answers in its place: the champion for a challenger, the one before for the champion.

        Closed itself when nobody may.
        """
        if not served.closed:
            return served
        if served.arm.name != CHAMPION:
            return self._open(self.arms[CHAMPION])
        before = self.arms.get(STANDBY)
        wanted = self.parameters.on_revoked == "standby" and before is not None and not before.closed
        return before if wanted and before is not None else served

    def _find(self, wanted: str) -> ServedArm:
        for name, served in self.arms.items():
            if name != STANDBY and wanted in (
                name,
                str(served.arm.version),
                f"{served.arm.model}:{served.arm.version}",
            ):
                return served
        raise UnknownVersion(f"no live arm of endpoint {self.route.endpoint} serves {wanted!r}")

    def all(self) -> tuple[ServedArm, ...]:
        """Arms, stand-by and shadows."""
        return (*self.arms.values(), *self.shadows)

    def origins(self) -> dict[str, dict[str, Any]]:
        """Every parameter in force, and where its value is from: the route's revision, or a variable of this gateway."""
        values = msgspec.to_builtins(self.parameters)
        route = f"route revision {self.route.revision}"
        return {
            name: {"value": value, "origin": self.pinned[name][0] if name in self.pinned else route}
            for name, value in values.items()
        }

    def status(self, error: str | None) -> EndpointStatus:
        """What this gateway acknowledges."""
        closed = "; ".join(f"{name} is closed: {served.closed}" for name, served in self.arms.items() if served.closed)
        return EndpointStatus(
            revision=self.route.revision,
            digest=self.digest,
            error=error or closed or None,
            arms={one.arm.name: sum(replica.live for replica in one.replicas) for one in self.all()},
            pinned={name: variable for name, (variable, _) in self.pinned.items()},
            parameters=msgspec.to_builtins(self.parameters),
            replicas={replica.name: one.arm.package_digest for one in self.all() for replica in one.replicas},
        )


def schema_of(package_digest: str, signature: Signature) -> Schema:
    """The columns under which answers of this package are logged."""
    label = {"BOOL": "bool", "INT64": "int", "FP64": "float", "BYTES": "string"}
    inputs = tuple(Field(spec.name, spec.type, spec.nullable) for spec in signature.inputs)
    if signature.task == "regression":
        outputs: tuple[Field, ...] = (Field("value", "float"),)
    else:
        kind: Any = label[signature.label_datatype]
        scores = Field("score", "float") if signature.task == "binary" else Field("probabilities", "floats")
        by_name = {"label": Field("label", kind), scores.name: scores}
        outputs = tuple(by_name[output.name] for output in signature.outputs)
    return Schema(package_digest, inputs, outputs)
