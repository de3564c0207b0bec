"""An endpoint with arms whose replicas are no processes, for tests of what the gateway makes of them."""

from __future__ import annotations

from typing import Any

from interlock.gateway.arms import Endpoint, ServedArm, schema_of
from interlock.gateway.rules import compile_rules
from interlock.model.signature import Signature
from interlock.registry.routes import CHAMPION, Arm, ExperimentRef, Parameters, RouteDocument


def served(name: str, signature: Signature, *replicas: Any) -> ServedArm:
    """An approved arm of all units, with a package of its own; `replicas` answer its questions."""
    package = "sha256:" + name.encode().hex().ljust(64, "0")
    return ServedArm(
        arm=Arm(name, "m", 1, package, "1.0.0-1.00000000", (), ((0, 10_000),)),
        author="ann",
        signature=signature,
        schema=schema_of(package, signature),
        replicas=replicas,
        propensity=1.0,
        approval="approved",
        known=(),
        rules=compile_rules((), signature, strict=True),
    )


def endpoint(champion: ServedArm, *shadows: ServedArm, **parameters: Any) -> Endpoint:
    """The endpoint `e` with one arm, and shadows."""
    values = Parameters(**parameters)
    route = RouteDocument(1, "e", 1, (champion.arm,), ExperimentRef("salt"), values, "olga", "test", "", None)
    return Endpoint(route, "", {CHAMPION: champion}, shadows, {})
