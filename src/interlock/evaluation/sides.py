"""One side of a decision diff: what a gateway would do with logged requests, up to whom it would ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from interlock.core.errors import Usage
from interlock.core.hashing import canonical, digest
from interlock.evaluation.diff import Side
from interlock.evaluation.evaluate import Candidate
from interlock.evaluation.metrics import Array, Floats
from interlock.evaluation.tally import Decisions
from interlock.model.answers import label_codes
from interlock.model.conditions import Conditions
from interlock.model.signature import Signature
from interlock.registry.routes import CHAMPION, Parameters, Rule

if TYPE_CHECKING:
    import pyarrow as pa

OBEYED = ("ACTIVATE", "THRESHOLD", "FALLBACK")
"""Parameters that a replay obeys; the others say when and by whom a request is answered, not what is decided."""
ASK = -1
"""Code of a decision that a model has yet to make."""


class Setup(msgspec.Struct, frozen=True):
    """A version in the champion's place, under parameters and rules. `arms`: package of each arm that a rule may name."""

    candidate: Candidate
    parameters: Parameters
    rules: tuple[Rule, ...]
    arms: dict[str, str]

    @property
    def package(self) -> str:
        """Its digest."""
        return self.candidate.subject.package_digest

    @property
    def signature(self) -> Signature:
        """Of its model."""
        return self.candidate.package.manifest.signature

    def obeyed(self) -> dict[str, Any]:
        """The parameters that count."""
        values = msgspec.to_builtins(self.parameters)
        return {name: values[name] for name in OBEYED}

    def fitting(self) -> tuple[Rule, ...]:
        """The rules that this version has the inputs for; a gateway leaves the others out where it steps back to it."""

        def fits(rule: Rule) -> bool:
            try:
                Conditions([rule.when], self.signature)
            except Usage:
                return False
            return True

        return tuple(rule for rule in self.rules if fits(rule))

    def said(self) -> Side:
        """As the document tells it."""
        kept = self.fitting()
        left_out = tuple(rule.name for rule in self.rules if rule not in kept)
        alike = [msgspec.structs.replace(rule, reason="") for rule in kept]
        return Side(self.candidate.subject, self.obeyed(), kept, digest(canonical(alike)), left_out)


class Read(NamedTuple):
    """A page as one package takes it: arrays of its inputs; for each request why it cannot be asked (0: it can), and whether
    it would be refused as invalid.
    """

    columns: list[Array]
    lacks: Array
    invalid: Array


class Plan(NamedTuple):
    """For each request: the decision or ASK, the package to ask, numbers of a fixed answer, why it cannot be replayed."""

    codes: Array
    targets: Array
    numbers: Floats
    reasons: Array


class Decider:
    """Decides requests in a gateway's order: invalid, deactivated, the first rule that holds, else the model."""

    def __init__(self, setup: Setup, decisions: Decisions, packages: list[str], reason: Any) -> None:
        """`packages`: those that are asked; `reason`: text → number."""
        self.signature, self.threshold = setup.signature, setup.parameters.threshold
        self.own = packages.index(setup.package)
        self._decisions, self._activate = decisions, setup.parameters.activate
        self._rules = setup.fitting()
        self._conditions = Conditions([rule.when for rule in self._rules], setup.signature)
        self._fallback = setup.parameters.fallback
        self._targets = {}
        for rule in self._rules:
            wanted = setup.package if rule.arm == CHAMPION else setup.arms.get(rule.arm, "")
            why = f"rule {rule.name} sends it to arm {rule.arm}, which is neither of the two versions"
            unknown = rule.then == "use" and wanted not in packages
            self._targets[rule.name] = (-1, reason(why)) if unknown else (packages.index(wanted or setup.package), 0)

    def plan(self, table: pa.Table, starts: Array, reads: list[Read]) -> Plan:
        """What follows for each request, which begins at a row of `starts`; `reads`: of each package."""
        own = reads[self.own]
        codes = np.where(own.invalid, self._decisions.code("invalid"), ASK)
        plan = Plan(
            codes, np.full(len(starts), self.own), np.full((len(starts), self.signature.width), np.nan), own.lacks + 0
        )
        if not self._activate:
            self._fix(plan, np.flatnonzero(codes == ASK), self._fallback, "deactivated")
        elif self._rules:
            open_ = np.flatnonzero((codes == ASK) & (own.lacks == 0))
            first = self._first(table, starts, open_)
            for at, rule in enumerate(self._rules):
                self._obey(rule, open_[first == at], plan, reads)
        return plan

    def failed(self) -> tuple[int, list[float]]:
        """The decision where the model raises."""
        return self._fixed(self._fallback, "error")

    def _first(self, table: pa.Table, starts: Array, asked: Array) -> Array:
        """Position of the first rule that holds for each of the requests, -1 for none."""
        columns: list[Any] = [()] * len(self.signature.inputs)
        used = {
            at: table.column(f"in_{self.signature.inputs[at].name}").to_pylist() for at in self._conditions.positions
        }
        units, times = table.column("unit_id").to_pylist(), table.column("event_us").to_pylist()
        ends, found = np.append(starts[1:], table.num_rows).tolist(), np.full(len(asked), -1)
        for i, (request, start) in enumerate(zip(asked.tolist(), starts[asked].tolist(), strict=True)):
            end = ends[request]
            for at, values in used.items():
                columns[at] = values[start:end]
            first = self._conditions.first(columns, end - start, units[start], times[start])
            found[i] = -1 if first is None else first
        return found

    def _obey(self, rule: Rule, hit: Array, plan: Plan, reads: list[Read]) -> None:
        if rule.then == "refuse":
            plan.codes[hit] = self._decisions.code("refused")
        elif rule.then == "use":
            target, why = self._targets[rule.name]
            plan.targets[hit] = target
            plan.reasons[hit] = why or reads[target].lacks[hit]
            plan.codes[hit[reads[target].invalid[hit]]] = self._decisions.code("invalid")
        else:
            self._fix(plan, hit, self._fallback if rule.output is None else rule.output, "error")

    def _fix(self, plan: Plan, hit: Array, output: dict[str, Any] | str, without: str) -> None:
        plan.codes[hit], plan.numbers[hit] = self._fixed(output, without)

    def _fixed(self, output: dict[str, Any] | str, without: str) -> tuple[int, list[float]]:
        """Code and numbers of a fixed answer; the decision `without` where there is none."""
        if not isinstance(output, dict):
            return self._decisions.code(without), [np.nan] * self.signature.width
        numbers = next(value for name, value in output.items() if name != "label")
        numbers = numbers if isinstance(numbers, list) else [float(numbers)] * self.signature.width
        label = 0
        if self.signature.task != "regression":
            label = int(label_codes(self.signature, np.array([numbers]), self.threshold)[0])
            label = self.signature.classes.index(output["label"]) if "label" in output else label
        return self._decisions.labels + label, numbers
