"""Whether a version fits an endpoint that has answered before: its log has one typed column an input and output."""

from __future__ import annotations

from collections.abc import Sequence

from interlock.core.errors import Refused
from interlock.model.signature import Signature


def check_history(endpoint: str, served: Sequence[Signature], new: Signature) -> None:
    """Compare with every version that the endpoint ever served.

    Raises:
        Refused: another task or label type, an input of the same name with another type, or one that differs from an
            earlier one only in its capitals.
    """
    for old in served:
        kinds = [(one.task, one.label_datatype if one.classes else "FP64") for one in (old, new)]
        if kinds[0] != kinds[1]:
            raise _refusal(endpoint, "the label", *("{} {}".format(*kind) for kind in kinds))
        known = {spec.name.lower(): spec for spec in old.inputs}
        for spec in new.inputs:
            before = known.get(spec.name.lower(), spec)
            if (before.name, before.type) != (spec.name, spec.type):
                raise _refusal(
                    endpoint, f"input {spec.name}", f"{before.name} {before.type}", f"{spec.name} {spec.type}"
                )


def _refusal(endpoint: str, what: str, before: str, now: str) -> Refused:
    return Refused(
        f"{what} of this version is {now}, but {endpoint} has logged {before}",
        next="give it another name, or deploy to a new endpoint: --to NAME",
    )
