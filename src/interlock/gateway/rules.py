"""The rules of an endpoint at one arm: which of them decides a request?"""

from __future__ import annotations

from interlock.core.errors import Usage
from interlock.model.columns import Columns
from interlock.model.conditions import Conditions
from interlock.model.signature import Signature
from interlock.registry.routes import Rule

SECONDS = 0.1
"""For so long all rules together may look at one request: meanwhile the gateway does nothing else."""


class Rules:
    """Rules in force, in their order."""

    def __init__(self, rules: tuple[Rule, ...], conditions: Conditions) -> None:
        self._rules = rules
        self._conditions = conditions

    def decide(self, columns: Columns, rows: int, unit: str, event_time_us: int) -> Rule | None:
        """The first rule that holds for any row of the request, checked columns in the signature's order; else None.

        Raises:
            Undecided: they took longer than `SECONDS`.
        """
        if not self._rules:
            return None
        found = self._conditions.first(columns, rows, unit, event_time_us, SECONDS)
        return None if found is None else self._rules[found]

    @property
    def errors(self) -> dict[str, int]:
        """Rule → rows for which it could not be evaluated, and so did not hold; counted from 0 by every `Rules`."""
        return {rule.name: failed for rule, failed in zip(self._rules, self._conditions.failed, strict=True)}


def compile_rules(rules: tuple[Rule, ...], signature: Signature, *, strict: bool) -> Rules:
    """The rules of a route document for an arm with that signature.

    `strict`: for the document's own arms, which `release` has held the rules against; else (the stand-by, arms before) those
    that do not fit are left out, because they speak of inputs that this version does not know.

    Raises:
        Usage: one does not fit, and `strict`.
    """
    kept = rules if strict else tuple(rule for rule in rules if _fits(rule, signature))
    return Rules(kept, Conditions([rule.when for rule in kept], signature))


def _fits(rule: Rule, signature: Signature) -> bool:
    try:
        Conditions([rule.when], signature)
    except Usage:
        return False
    return True
