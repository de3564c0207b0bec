"""The feature function as source: cut out of the user's module for the package, loaded again from its verified bytes.

What travels is one self-contained file: the imports, constants, helper functions and classes of the same module that
the function needs. Training loads that very file too, so both sides run the same code.
"""

from __future__ import annotations

import ast
import builtins
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import symtable
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from interlock.core.errors import RecipeFailed

FILE = "features.py"
ENTRY = "__features__"
IDENTITY = f"""\
# No feature function: the model sees the raw columns.


def raw_columns(raw):
    return raw


{ENTRY} = raw_columns
"""
ALWAYS = ("numpy", "pandas")
"""Packages that every model server with a feature function has; others are named in `requirements`."""

Function = Callable[[Any], Any]
Import = ast.Import | ast.ImportFrom
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def extract_source(function: Function | None, requirements: Iterable[str] = (), *, entry: str = ENTRY) -> str:
    """The self-contained source of a feature function, or of a predictor's class; None = the identity.

    `requirements`: distributions beyond numpy and pandas that the file may import.

    Raises:
        RecipeFailed: it needs something that cannot travel; the message names it.
    """
    if function is None:
        return IDENTITY
    name = getattr(function, "__name__", repr(function))
    if not isinstance(function, types.FunctionType | type) or function.__qualname__ != name or name == "<lambda>":
        raise RecipeFailed(
            f"{name} is not a plain function or class at the top level of its module",
            next="define it there with def or class: closures, lambdas and methods cannot travel with the model",
        )
    return _Module(function, requirements).self_contained(name, entry)


class _Module:
    """The top level of a module: which statements bind which name."""

    def __init__(self, function: types.FunctionType | type, requirements: Iterable[str]) -> None:
        self.feature = function.__name__
        try:
            self.source = _source(sys.modules[function.__module__])
        except (OSError, KeyError, TypeError) as error:
            raise RecipeFailed(f"the source of {function.__module__} cannot be read: {error}") from error
        self.allowed = {*ALWAYS, *requirements}
        self.imports: dict[str, list[tuple[Import, ast.alias]]] = {}
        self.bindings: dict[str, list[ast.stmt]] = {}
        self.nested: set[str] = set()
        for statement in ast.parse(self.source).body:
            if isinstance(statement, Import):
                for alias in statement.names:
                    self.imports.setdefault(_bound(alias), []).append((statement, alias))
            elif isinstance(statement, _DEFINITIONS):
                self.bindings.setdefault(statement.name, []).append(statement)
            elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
                for bound in _stored(statement):
                    self.bindings.setdefault(bound, []).append(statement)
            else:
                self.nested |= set(_stored(statement))

    def self_contained(self, name: str, entry: str) -> str:
        """The source of everything that `name` needs, in the module's order, ending in the entry point."""
        lines: set[str] = set()
        statements: set[ast.stmt] = set()
        waiting, seen = [name], set()
        while waiting:
            current = waiting.pop()
            if current in seen:
                continue
            seen.add(current)
            if current in self.bindings:
                for statement in self.bindings[current]:
                    statements.add(statement)
                    waiting += [*_stored(statement), *_needed(self._travelling(statement))]
                    self._check_inner_imports(statement)
            elif current in self.imports:
                lines |= {self._checked_import(*one) for one in self.imports[current]}
            elif not hasattr(builtins, current):
                raise self._missing(current)
        head = "\n\n".join(["from __future__ import annotations", *(["\n".join(sorted(lines))] if lines else [])])
        blocks = [self._text(one) for one in sorted(statements, key=lambda one: one.lineno)]
        return "\n\n\n".join([head, *blocks, f"{entry} = {name}\n"])

    def _check_inner_imports(self, statement: ast.stmt) -> None:
        for node in ast.walk(statement):
            if isinstance(node, Import):
                for alias in node.names:
                    self._checked_import(node, alias)

    def _checked_import(self, statement: Import, alias: ast.alias) -> str:
        """The import of one name as a line, if what it imports is there at serving too."""
        bound = _bound(alias)
        module = _module(statement, alias)
        root = module.partition(".")[0]
        relative = isinstance(statement, ast.ImportFrom) and statement.level > 0
        if not relative and (root in sys.stdlib_module_names or root in ALWAYS):
            return ast.unparse(_one(statement, alias))
        if root == "interlock" and not relative:
            raise RecipeFailed(
                f"{self.feature} uses {bound} of interlock, which is no part of a model package",
                next="use interlock only around the feature function, not in it",
            )
        from importlib.metadata import packages_distributions  # costs every model server's start if it is at the top

        distributions = [] if relative else packages_distributions().get(root, [])
        if not distributions:
            raise RecipeFailed(
                f"{self.feature} uses {bound} from your module {'.' if relative else ''}{module}, "
                "which does not travel with the model",
                next=f"move {bound} into the module of {self.feature}",
            )
        if not self.allowed & set(distributions):
            raise RecipeFailed(
                f"{self.feature} uses {bound} of the package {distributions[0]}, which is no declared requirement",
                next=f'say requirements = ["{distributions[0]}"] in interlock.toml',
            )
        return ast.unparse(_one(statement, alias))

    def _missing(self, name: str) -> RecipeFailed:
        where = "inside a block (if, try, for, with)" if name in self.nested else "nowhere at the top level"
        return RecipeFailed(
            f"{self.feature} uses {name}, which its module defines {where}, so it cannot travel with the model",
            next=f"define {name} by a plain statement at the top level of the module of {self.feature}",
        )

    def _travelling(self, statement: ast.stmt) -> ast.stmt:
        """The statement without interlock's decorators."""
        if not isinstance(statement, _DEFINITIONS):
            return statement
        bare = copy.copy(statement)
        bare.decorator_list = [one for one in statement.decorator_list if not self._is_ours(one)]
        return bare

    def _is_ours(self, decorator: ast.expr) -> bool:
        root = decorator.func if isinstance(decorator, ast.Call) else decorator
        while isinstance(root, ast.Attribute):
            root = root.value
        return isinstance(root, ast.Name) and any(
            _module(*one).partition(".")[0] == "interlock" for one in self.imports.get(root.id, ())
        )

    def _text(self, statement: ast.stmt) -> str:
        """The statement as it is written, comments and all."""
        text = ast.get_source_segment(self.source, statement) or ast.unparse(statement)
        travelling = self._travelling(statement)
        if isinstance(travelling, _DEFINITIONS):
            text = "".join(f"@{ast.unparse(one)}\n" for one in travelling.decorator_list) + text
        return text


def _source(module: types.ModuleType) -> str:
    """The text of a module; of a notebook the cells that were run so far and are Python."""
    cells = getattr(module, "In", None)
    if hasattr(module, "__file__") or not isinstance(cells, list):
        return inspect.getsource(module)
    return "\n".join(cell for cell in cells if _is_python(cell))


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def _bound(alias: ast.alias) -> str:
    return alias.asname or alias.name.partition(".")[0]


def _module(statement: Import, alias: ast.alias) -> str:
    return alias.name if isinstance(statement, ast.Import) else statement.module or ""


def _one(statement: Import, alias: ast.alias) -> Import:
    if isinstance(statement, ast.Import):
        return ast.Import([alias])
    return ast.ImportFrom(statement.module, [alias], statement.level)


def _stored(statement: ast.AST) -> Iterator[str]:
    """Names that a statement binds in its own scope; those of functions inside it are left out."""
    if isinstance(statement, _DEFINITIONS):
        yield statement.name
        return
    for node in ast.iter_child_nodes(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.alias):
            yield _bound(node)
        elif not isinstance(node, ast.Lambda):
            yield from _stored(node)


class _WithoutAnnotations(ast.NodeTransformer):
    """Annotations are never evaluated in the extracted file, so what they name is not needed."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(node.arg)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        value = self.visit(node.value) if node.value else ast.Constant(None)
        return ast.Assign([node.target], value, lineno=0)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.returns = None
        return node


def _needed(statement: ast.stmt) -> Iterator[str]:
    """Global names that a statement reads, by Python's own rules of scope."""
    bare = _WithoutAnnotations().visit(ast.parse(ast.unparse(statement)))
    scopes = [symtable.symtable(ast.unparse(ast.fix_missing_locations(bare)), FILE, "exec")]
    while scopes:
        scope = scopes.pop()
        scopes += scope.get_children()
        top = scope.get_type() == "module"
        yield from (one.get_name() for one in scope.get_symbols() if one.is_referenced() and (top or one.is_global()))


class _BytesLoader(importlib.abc.InspectLoader):
    """Imports one module from source that is in memory."""

    def __init__(self, source: str) -> None:
        self.source = source

    def get_source(self, fullname: str) -> str:
        return self.source

    def is_package(self, fullname: str) -> bool:
        return False


def load_source(source: bytes, digest: str, *, entry: str = ENTRY) -> Function:
    """Run extracted source as a fresh module, named by its digest, and return the feature function or class.

    Raises:
        RecipeFailed: it raises, or holds no such thing.
    """
    name = f"interlock_features_{digest.removeprefix('sha256:')[:12]}"
    loader = _BytesLoader(source.decode())
    module = importlib.util.module_from_spec(importlib.machinery.ModuleSpec(name, loader, origin=FILE))
    sys.modules[name] = module  # dataclasses look their module up
    try:
        loader.exec_module(module)
    except Exception as error:
        raise RecipeFailed(f"{FILE} cannot be loaded: {type(error).__name__}: {error}") from error
    function: Function | None = getattr(module, entry, None)
    if function is None:
        raise RecipeFailed(f"{FILE} holds no {entry}")
    return function
