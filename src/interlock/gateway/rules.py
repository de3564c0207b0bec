"""The rules of an endpoint at one arm: which of them decides a request?"""

from __future__ import annotations

from interlock.model.columns import Column
from interlock.model.conditions import Conditions
from interlock.model.signature import Signature
from interlock.registry.routes import Rule


class Rules:
    """Rules in force, in their order."""

    def __init__(self, rules: tuple[Rule, ...], conditions: Conditions) -> None:
        self._rules = rules
        self._conditions = conditions

    def decide(self, columns: list[Column], rows: int, unit: str, event_time_us: int) -> Rule | None:
        """The first rule that holds for any row of the request, checked columns in the signature's order; else None."""
        if not self._rules:
            return None
        found = self._conditions.first(columns, rows, unit, event_time_us)
        return None if found is None else self._rules[found]

    @property
    def errors(self) -> dict[str, int]:
        """Rule → rows for which it could not be evaluated, and so did not hold; counted from 0 by every `Rules`."""
        return {rule.name: failed for rule, failed in zip(self._rules, self._conditions.failed, strict=True)}


def compile_rules(rules: tuple[Rule, ...], signature: Signature) -> Rules:
    """The rules of a route document for an arm with that signature.

    Raises:
        Usage: one does not fit it; a route that was written by `release` has none of those.
    """
    return Rules(rules, Conditions([rule.when for rule in rules], signature))
