"""Conditions in CEL, read and typed against a signature before anything runs.

The library that evaluates CEL learns types only while it runs, and `&&`, `||` and `? :` hide what they skip: a wrong type
could sleep in a signed document for months. So a condition is read here a second time: every operand of every operator gets
a type, and what is not known here is refused. Evaluating stays with the library; raw inputs become plain variables there,
because a map of inputs costs it several times as much as their values.

Source of the language: https://github.com/google/cel-spec (langdef.md); offered is what questions about single values need.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from functools import cache
from importlib.machinery import PathFinder
from typing import Any, NamedTuple

from interlock.core.errors import Usage
from interlock.core.settings import Logical
from interlock.model.signature import Signature

LENGTH = 4096
FAULTS = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)
"""What the library raises when a text cannot be parsed or evaluated."""

TYPES: dict[Logical, str] = {
    "float": "double", "int": "int", "bool": "bool", "string": "string", "category": "string", "timestamp": "timestamp",
}  # fmt: skip
ORDERED = ("double", "int", "string", "timestamp", "duration")
ALIKE = [*((kind, kind) for kind in ORDERED), ("int", "double"), ("double", "int")]
EQUAL, ORDER = ("==", "!=", "in"), ("<", "<=", ">", ">=")
LEVELS = {"||": 1, "&&": 2, **dict.fromkeys((*EQUAL, *ORDER), 3), "+": 4, "-": 4, "*": 5, "/": 5, "%": 5}
OPERATORS = {
    **{(sign, "bool", "bool"): "bool" for sign in ("||", "&&", *EQUAL)},
    **{(sign, *kinds): "bool" for kinds in ALIKE for sign in (*EQUAL, *ORDER)},
    **{(sign, kind, kind): kind for kind in ("int", "double") for sign in "+-*/"},
    ("%", "int", "int"): "int",
    ("+", "string", "string"): "string",
    **{(sign, kind, "duration"): kind for kind in ("duration", "timestamp") for sign in "+-"},
    ("-", "timestamp", "timestamp"): "duration",
}
PARTS = (
    "FullYear", "Month", "Date", "DayOfMonth", "DayOfWeek", "DayOfYear", "Hours", "Minutes", "Seconds", "Milliseconds",
)  # fmt: skip
CALLS: dict[tuple[str, ...], str] = {
    **{(to, kind): to for to in ("int", "double") for kind in ("int", "double", "string")},
    **{("string", kind): "string" for kind in ORDERED},
    **{(to, "string"): to for to in ("timestamp", "duration")},
    **{(name, "string"): "int" for name in ("size", ".size")},
    **{(f".{name}", "string", "string"): "bool" for name in ("contains", "startsWith", "endsWith", "matches")},
    **{(f".get{part}", "timestamp"): "int" for part in PARTS},
}
"""Name (of a method: with its dot) and types of what it is given → type."""

_TOKEN = re.compile(
    r"""(?P<skip>(?:\s|//[^\n]*)+)
    |(?P<string>[rR](?:"[^"\n]*"|'[^'\n]*')|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    |(?P<double>\d*\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)
    |(?P<int>0[xX][0-9a-fA-F]+|\d+)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<sign>&&|\|\||[=!<>]=|.)""",
    re.VERBOSE | re.DOTALL,
)


class _Token(NamedTuple):
    kind: str
    word: str
    start: int
    end: int


class _Node(NamedTuple):
    """A part that was read."""

    type: str
    start: int
    literal: bool = False
    nullable: bool = False


@cache
def engine() -> Any:
    """The library's compiled part. Its package would import a command line of its own: a third of a second."""
    name, package = "cel.cel", importlib.util.find_spec("cel")
    spec = PathFinder.find_spec(name, package.submodule_search_locations if package else None)
    if name not in sys.modules and spec and spec.loader:
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def compile_condition(text: str, signature: Signature, variables: dict[str, str], patterns: list[Any]) -> Any:
    """The library's program of a condition whose types were checked.

    `variables` (of an input, `unit` or `time`: name in the text → name in the program) gets those that it reads, `patterns`
    a program for each of its patterns: the library compiles them anew every time, which is what can make a condition slow.

    Raises:
        Usage: over 4096 characters, no CEL, an input that the model has not, operands whose types do not go together, a
            literal that is no time, span or pattern, no yes-or-no question, or a part of CEL that conditions do not have.
    """
    if len(text) > LENGTH:
        raise Usage(f"the condition has {len(text)} characters; {LENGTH} are allowed")
    try:
        engine().compile(text)  # it refuses deep nesting, so that the reader needs no limit of its own
    except FAULTS as error:
        said = str(error).splitlines()[0].rpartition("ERROR: <input>:")[2]
        raise Usage(f"no condition in CEL: {said[:200]}", next="as in: input.NAME > 3.5") from None
    reader = _Reader(text, signature)
    program = engine().compile(reader.plain(variables))
    patterns += [engine().compile(call) for call in reader.patterns]
    return program


class _Reader:
    """Reads from left to right; the right side of an operator goes as far as what binds tighter."""

    def __init__(self, text: str, signature: Signature) -> None:
        self._text = text
        self._inputs = {spec.name: spec for spec in signature.inputs}
        self.patterns: list[str] = []
        self._edits: list[tuple[int, int, str]] = []
        found = (_Token(one.lastgroup or "", one.group(), *one.span()) for one in _TOKEN.finditer(text))
        self._tokens = [one for one in found if one.kind != "skip"] + [_Token("end", "", len(text), len(text))]
        self._at = 0

    @property
    def _now(self) -> _Token:
        return self._tokens[self._at]

    def _next(self) -> _Token:
        token = self._now
        self._at += token.kind != "end"
        return token

    def _take(self, word: str) -> bool:
        """Whether the next token is this one; then it is taken. Strings keep their quotes, so they are no sign or name."""
        taken = self._now.word == word
        self._at += taken
        return taken

    def _expect(self, word: str) -> None:
        if not self._take(word):
            raise self._error(f"expected {word!r}, got {self._now.word!r}", self._now.start)

    def _said(self, start: int) -> str:
        return self._text[start : max(self._tokens[self._at - 1].end, start + 1)]

    def _error(self, why: str, start: int, next: str = "") -> Usage:
        said = self._said(start)
        return Usage(f"{why}, in: {said if len(said) <= 80 else said[:80] + '…'}", next=next)

    def plain(self, variables: dict[str, str]) -> str:
        """The whole text with plain variables."""
        node = self._expression()
        if self._now.kind != "end":
            raise self._error(f"{self._now.word!r} is not known here", self._now.start)
        if node.type != "bool":
            raise self._error(f"a condition says yes or no; this is of type {node.type}", 0)
        text = self._text
        for start, end, name in reversed(self._edits):
            text = text[:start] + variables.setdefault(name, f"v{len(variables)}") + text[end:]
        return text

    def _expression(self) -> _Node:
        asked = self._binary(1)
        if not self._take("?"):
            return asked
        yes = self._expression()
        self._expect(":")
        no = self._expression()
        if asked.type != "bool" or yes.type != no.type:
            raise self._error(f"{asked.type} ? {yes.type} : {no.type} does not go together", asked.start)
        return _Node(yes.type, asked.start)

    def _binary(self, level: int) -> _Node:
        left = self._unary()
        while LEVELS.get(self._now.word, 0) >= level:
            sign = self._next().word
            right = self._items() if sign == "in" else self._binary(LEVELS[sign] + 1)
            kind = OPERATORS.get((sign, left.type, right.type))
            if sign in ("==", "!=") and "null" in (left.type, right.type):
                if not (left.nullable or right.nullable):
                    raise self._error("this is never null", left.start)
                kind = "bool"
            if not kind:
                mixed = {"int", "double"} == {left.type, right.type}
                step = "2.0 is a double, 2 an int; double(…) and int(…) convert" if mixed else ""
                raise self._error(f"{left.type} {sign} {right.type} does not go together", left.start, step)
            left = _Node(kind, left.start)
        return left

    def _items(self) -> _Node:
        """The list after `in`, with the type of its items."""
        start = self._now.start
        if not self._take("["):
            raise self._error("expected a list, as in: unit in ['a', 'b']", start)
        kinds = {(first := self._expression()).type}
        while self._take(","):
            kinds.add(self._expression().type)
        self._expect("]")
        if len(kinds) > 1:
            raise self._error(f"a list of {' and '.join(sorted(kinds))}", start)
        return first

    def _unary(self) -> _Node:
        start, signs = self._now.start, set()
        while self._now.word in ("!", "-"):
            signs.add(self._next().word)
        node = self._primary()
        while self._take("."):
            node = self._call("." + self._next().word, node.start, node)
        for sign in signs:
            if node.type not in (("bool",) if sign == "!" else ("int", "double")):
                raise self._error(f"{sign}{node.type} does not go together", start)
        return _Node(node.type, start) if signs else node

    def _primary(self) -> _Node:
        kind, word, start, end = self._next()
        if kind in ("string", "double", "int"):
            return _Node(kind, start, literal=True)
        if word == "(":
            node = self._expression()
            self._expect(")")
            return _Node(node.type, start, nullable=node.nullable)
        if word in ("true", "false", "null"):
            return _Node("null" if word == "null" else "bool", start)
        if word == "input":
            return self._input(start)
        if word in ("unit", "time"):
            self._edits.append((start, end, word))
            return _Node("string" if word == "unit" else "timestamp", start)
        if kind == "name" and self._now.word == "(":
            return self._call(word, start)
        raise self._error(f"{word!r} is not known here (but input.NAME, unit and time)", start)

    def _input(self, start: int) -> _Node:
        """`input.name` or `input["any name"]`."""
        if self._take("["):
            token = self._next()
            name = engine().evaluate(token.word) if token.kind == "string" else token.word
            self._expect("]")
        else:
            self._expect(".")
            name = self._next().word
        spec = self._inputs.get(name)
        if spec is None:
            raise self._error(f"the model has no input {name!r} (there: {', '.join(self._inputs)})", start)
        self._edits.append((start, self._tokens[self._at - 1].end, f"input.{name}"))
        return _Node(TYPES[spec.type], start, nullable=spec.nullable)

    def _call(self, name: str, start: int, *given: _Node) -> _Node:
        if not any(name == key[0] for key in CALLS):
            there = ", ".join(sorted({key[0] for key in CALLS}))
            raise self._error(
                f"there is no {name}(…) in conditions", start, f"there are: {there}; and input.NAME == null"
            )
        opened = self._now.start
        self._expect("(")
        arguments = [] if self._now.word == ")" else [self._expression()]
        while self._take(","):
            arguments.append(self._expression())
        self._expect(")")
        key = (name, *(one.type for one in (*given, *arguments)))
        if key not in CALLS:
            raise self._error(f"there is no {name}({', '.join(key[1:])})", start)
        call = ("''" if given else "") + name + self._said(opened)
        if arguments and arguments[0].literal:
            try:  # what is wrong with a literal is wrong for every request
                engine().evaluate(call)
            except FAULTS as error:
                raise self._error(" ".join(str(error).split()), start) from None
        elif name == ".matches":
            raise self._error("a pattern has to be written out", start)
        self.patterns += [call] if name == ".matches" else []
        return _Node(CALLS[key], start)
