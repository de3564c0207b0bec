"""How much a change has to be judged: by how many, for how long, and what an emergency may skip. Part of the trust root."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec

Risk = Literal["low", "medium", "high"]
"""The class of a change, by the share of decisions that it changes."""
RISKS: tuple[Risk, ...] = get_args(Risk)
EVERYTHING_ELSE = "default"
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Quorum(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose approvals a class needs."""

    reviewers: Annotated[int, msgspec.Meta(ge=1, le=20)] = 1
    """People, not keys: owners."""
    one_of: tuple[str, ...] = ()
    """Names of keys, or roles: one who signed must be among them. Empty: nobody in particular."""
    operators: Annotated[int, msgspec.Meta(ge=1, le=20)] | msgspec.UnsetType = msgspec.UNSET
    """People who sign a change of parameters or rules; unset: as in the class below, at first one."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What holds at an endpoint or for a model."""

    medium: Share = 0.01
    """Above this share of changed decisions a change is of the class medium."""
    high: Share = 0.1
    override_hours: Annotated[float, msgspec.Meta(ge=0, le=8760)] = 0.0
    """For so long an emergency override holds; 0: there is none."""
    approval_days: Annotated[float, msgspec.Meta(gt=0, le=36500)] | None = None
    """No approval lives longer than this."""


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The project's policy; an empty one asks for one reviewer, for ever."""

    quorum: dict[Risk, Quorum] = {}
    """A class that is not named needs what the one below it needs."""
    limits: dict[str, Limits] = {}
    """By endpoint or model; `default` is for all others."""

    def __post_init__(self) -> None:
        if self.operators_of("low") > 1:
            raise ValueError("quorum.low has one operator: what only tightens is of the class low, and never waits")

    def quorum_of(self, risk: Risk) -> Quorum:
        """Whose approvals the class needs."""
        named = [self.quorum[one] for one in RISKS[: RISKS.index(risk) + 1] if one in self.quorum]
        return named[-1] if named else Quorum()

    def operators_of(self, risk: Risk) -> int:
        """So many people sign a change of parameters or rules of this class."""
        found = 1
        for one in RISKS[: RISKS.index(risk) + 1]:
            found = (self.quorum[one].operators or found) if one in self.quorum else found
        return found

    def judges_changes(self, *names: str) -> bool:
        """Whether some change of parameters or rules needs more than one signature at these endpoints and models."""
        reached = RISKS[: RISKS.index(self.class_of(1.0, *names)) + 1]
        return any(self.operators_of(risk) > 1 for risk in reached)

    def limits_of(self, *names: str) -> Limits:
        """What holds for the first of these endpoints and models that the policy names."""
        return next((self.limits[name] for name in (*names, EVERYTHING_ELSE) if name in self.limits), Limits())

    def class_of(self, share: float, *names: str) -> Risk:
        """The class of a change of this share of decisions, at these endpoints and models."""
        limits = self.limits_of(*names)
        return "high" if share > limits.high else "medium" if share > limits.medium else "low"


def highest(*classes: Risk | None) -> Risk:
    """The highest of them; one that is not stated is low."""
    return max((one or "low" for one in classes), key=RISKS.index, default="low")
