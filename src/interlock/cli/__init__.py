"""The command line: `interlock COMMAND`. Thin; commands are imported when they run (`commands`)."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Group, Parameter, UnknownCommandError

from interlock import __version__
from interlock.cli import output
from interlock.cli.commands import COMMANDS, FAMILIES, GROUPS
from interlock.cli.session import Flags
from interlock.core.errors import InterlockError, Usage

HELP = "Train, judge, sign, serve, log and watch machine-learning models, with a person between training and serving."
EVERYWHERE = Group("Everywhere", sort_key=100)
Json = Annotated[bool, Parameter(group=EVERYWHERE, help="One JSON document on stdout.")]
Directory = Annotated[
    Path | None,
    Parameter(group=EVERYWHERE, help="The project (default: INTERLOCK_PROJECT, else the current directory)."),
]
Words = Annotated[str, Parameter(show=False, allow_leading_hyphen=True)]


def build() -> App:
    """The command line with all commands of the table."""
    plain = Parameter(negative=(), show_default=lambda value: value or None)
    app = App(name="interlock", help=HELP, version=__version__, help_format="plaintext", default_parameter=plain)
    groups = {name: Group(name, sort_key=at) for at, name in enumerate(GROUPS)}
    for name, (place, text) in FAMILIES.items():
        app.command(App(name=name, help=text, group=groups[place], help_format="plaintext"))
    for command in COMMANDS:
        family, _, leaf = command.name.rpartition(" ")
        parent = app[family] if family else app
        group = None if family else groups[command.group]
        example = f"Example: interlock {command.example}"
        parent.command(
            f"interlock.cli.{command.target}", name=leaf, group=group, help=command.help, help_epilogue=example
        )

    app.meta.suppress_keyboard_interrupt = False  # `run` turns it into an exit code, as everything else

    @app.meta.default
    def launch(*words: Words, json: Json = False, project: Directory = None) -> Any:
        call, bound, asked = app.parse_args(words, exit_on_error=False, print_error=False)
        if "session" in asked:
            bound.arguments["session"] = Flags(json, project)
        return call(*bound.args, **bound.kwargs)

    return app


def main(words: Sequence[str] | None = None) -> None:
    """Run one command and leave: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted."""
    sys.exit(run(sys.argv[1:] if words is None else words))


def run(words: Sequence[str]) -> int:
    """Run one command; its exit code."""
    as_json = "--json" in words
    try:
        reply = build().meta(list(words), exit_on_error=False, print_error=False, result_action="return_value")
        if not isinstance(reply, output.Reply):
            return 0
        output.show(reply, as_json=as_json)
        return 1 if reply.failed else 0
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left; nothing may be flushed to it
        return 1
    except Exception as error:  # the edge: no traceback reaches a user unless they ask for it
        if os.environ.get("INTERLOCK_DEBUG"):
            raise
        code, message, step = _explain(error)
        output.fail(code, message, step, as_json=as_json)
        return 2 if code == Usage.code else 1


def _explain(error: Exception) -> tuple[str, str, str]:
    """Code, sentence and next step."""
    if isinstance(error, InterlockError):
        return error.code, error.message, error.next
    if isinstance(error, UnknownCommandError):  # its own text would import every command to list them
        family, word = error.command_chain or (), next(iter(error.unused_tokens or ()), "")
        start = " ".join((*family, ""))
        names = [command.name.removeprefix(start) for command in COMMANDS if command.name.startswith(start)]
        alike = difflib.get_close_matches(word, names, 1)
        return Usage.code, f"there is no command {start + word!r}", " ".join(["interlock", *family, *alike, "--help"])
    if isinstance(error, CycloptsError):
        command = " ".join(("interlock", *(error.command_chain or ())))
        return Usage.code, str(error), f"{command} --help"
    missing = error.__cause__ if isinstance(error, ImportError) and error.__cause__ else error
    if isinstance(missing, ModuleNotFoundError) and not (missing.name or "").startswith("interlock"):
        return "not_installed", f"this command needs {missing.name}", 'install it: pip install "interlock[all]"'
    return "internal", f"{type(error).__name__}: {error}", "INTERLOCK_DEBUG=1 shows where; please report it"
