"""The user's recipe: imported from the project, called with checked parameters, its errors told as its own."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from interlock.core.errors import InterlockError, Misconfigured, RecipeFailed
from interlock.core.hashing import canonical
from interlock.training.recipe import MARK, RecipeMark

Log = Callable[[str], None]


class Recipe(msgspec.Struct, frozen=True):
    """The training function, what its mark says, and the source of its module."""

    function: Callable[..., Any]
    mark: RecipeMark
    source: str


@contextlib.contextmanager
def user_code(what: str, log: Log) -> Iterator[None]:
    """Turn whatever the user's code raises into RecipeFailed; the traceback goes to the log."""
    try:
        yield
    except InterlockError:
        raise
    except (Exception, SystemExit) as error:
        log(traceback.format_exc())
        raise RecipeFailed(
            f"{what} raised {type(error).__name__}: {error}",
            next="its traceback is in the log: interlock jobs logs RUN",
        ) from error


def load_recipe(root: Path, name: str, log: Log) -> Recipe:
    """Import `module:function` from the project directory.

    Raises:
        Misconfigured: the name is of another form.
        RecipeFailed: importing raises, or there is no function marked with `@recipe`.
    """
    module_name, _, function_name = name.partition(":")
    if not function_name:
        raise Misconfigured(f'recipe = "{name}" is no module:function', next='as in recipe = "recipe:train"')
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    with user_code(f"importing {module_name}", log):
        module = importlib.import_module(module_name)
    function = getattr(module, function_name, None)
    mark = getattr(function, MARK, None)
    if not callable(function) or not isinstance(mark, RecipeMark):
        raise RecipeFailed(
            f"{module_name} has no function {function_name} marked with @recipe",
            next='write @recipe(task="binary") over it: from interlock.training import recipe',
        )
    return Recipe(function, mark, inspect.getsource(module))


def parameters_of(recipe: Recipe, *given: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's keyword arguments: its defaults, overridden by each of `given` in turn.

    Raises:
        RecipeFailed: an unknown parameter, one without a value, or one that JSON cannot hold.
    """
    known = dict(list(inspect.signature(recipe.function).parameters.items())[1:])
    anything = any(one.kind is one.VAR_KEYWORD for one in known.values())
    named = {name: one for name, one in known.items() if one.kind in (one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD)}
    values = {name: one.default for name, one in named.items() if one.default is not one.empty}
    for parameters in given:
        values |= parameters
    strangers = [] if anything else [name for name in values if name not in named]
    missing = [name for name in named if name not in values]
    if strangers or missing:
        problem = f"has no parameter {strangers[0]}" if strangers else f"needs the parameter {missing[0]}"
        raise RecipeFailed(
            f"the recipe {problem} (known: {', '.join(named) or 'none'})",
            next="set it in [parameters] of interlock.toml, or with --param NAME=VALUE",
        )
    try:
        return dict(msgspec.json.decode(canonical(values)))
    except (TypeError, ValueError) as error:
        raise RecipeFailed(f"the recipe's parameters cannot be written down: {error}") from error


def git_commit(root: Path) -> str | None:
    """The commit of the project's repository, with `-dirty` behind it if files differ; None without a repository."""
    try:
        head = _git(root, "rev-parse", "HEAD")
        return f"{head}-dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else head
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=True, text=True, timeout=30)
    return done.stdout.strip()
