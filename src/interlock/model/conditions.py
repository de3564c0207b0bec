"""Conditions about requests, compiled once for a signature: which is the first that holds?"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from interlock.core.clock import FIRST_US, LAST_US, from_us
from interlock.core.errors import DeadlineExceeded
from interlock.model.cel import FAULTS, compile_condition, engine
from interlock.model.columns import Columns
from interlock.model.signature import Signature


class Undecided(DeadlineExceeded):
    """The rules took too long for the rows of a request: whether one of them holds is not known."""

    code = "undecided"


class Conditions:
    """`input.NAME` is a value of the row, null where it is missing; `unit` a text; `time` the event time.

    A request is one question: a condition holds for it when it holds for any of its rows. `positions`: of the inputs that are
    read; `patterns`: a program for each; `failed`: for each condition, rows for which it could not be evaluated.
    """

    def __init__(self, texts: Sequence[str], signature: Signature) -> None:
        """Compile; see `compile_condition` for what is refused."""
        names: dict[str, str] = {}
        self.patterns: list[Any] = []
        self._programs = [compile_condition(text, signature, names, self.patterns).execute for text in texts]
        self._unit, self._time = names.get("unit"), names.get("time")
        self._inputs = [
            (name, at, _time if spec.type == "timestamp" else _plain)
            for at, spec in enumerate(signature.inputs)
            if (name := names.get(f"input.{spec.name}"))
        ]
        self.positions = [at for _, at, _ in self._inputs]
        self.failed = [0] * len(texts)

    def first(
        self, columns: Columns, rows: int, unit: str, event_time_us: int, seconds: float = math.inf
    ) -> int | None:
        """Position of the first condition that holds, None where none does.

        One that cannot be evaluated for a row (a missing value compared, a division by zero) does not hold for it. Costs
        about 3 µs, 1 µs for each input of a row and 0.3 µs for each condition and row.

        Raises:
            Undecided: it took longer than `seconds`, in which the first row is always looked at.
        """
        end = time.perf_counter() + seconds
        context, found = engine().Context(), len(self._programs)
        if self._unit:
            context.add_variable(self._unit, unit)
        if self._time:
            context.add_variable(self._time, _time(event_time_us))
        read = [(name, columns[position], convert) for name, position, convert in self._inputs]
        for row in range(rows if read else 1):
            if row and time.perf_counter() > end:
                raise Undecided(
                    f"the rules had {seconds:g} s, and looked at {row} of {rows} rows: send fewer rows a request"
                )
            for name, column, convert in read:
                context.add_variable(name, convert(column[row]))
            for at in range(found):
                try:
                    holds = self._programs[at](context)
                except FAULTS:
                    self.failed[at] += 1
                    continue
                if holds:
                    found = at
                    break
            if not found:
                break
        return found if found < len(self._programs) else None


def _plain(value: Any) -> Any:
    return None if value != value else value  # NaN is a missing value


def _time(us: int | None) -> datetime | None:
    """A time further off counts as the nearest one: it stays before or after whatever it is compared with."""
    return None if us is None else from_us(min(max(us, FIRST_US), LAST_US))
