"""The skeleton of the command line: the table of commands, errors, and how light it is."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from interlock import cli
from interlock.cli import output
from interlock.cli.commands import COMMANDS, FAMILIES, GROUPS, Command
from interlock.core.errors import NotApproved, Usage

each_command = pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)


@each_command
def test_every_command_has_help_with_an_example(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*command.name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Example: interlock " + command.example.split()[0] in shown
    assert command.help.split()[0] in shown


@each_command
def test_every_example_is_a_command_line_that_parses(command: Command) -> None:
    words = shlex.split(command.example)
    assert words[: len(command.name.split())] == command.name.split()
    build = cli.build()
    _, bound, asked = build.parse_args(words, exit_on_error=False, print_error=False)
    assert bound is not None
    assert "session" in asked


def test_names_and_groups_are_known() -> None:
    names = [command.name for command in COMMANDS]
    assert len(set(names)) == len(names)
    assert {command.group for command in COMMANDS} <= set(GROUPS)
    assert {name.split()[0] for name in names if " " in name} == set(FAMILIES)


def plant(monkeypatch: pytest.MonkeyPatch, action: Any) -> None:
    """Let `interlock users list` do something else."""
    from interlock.cli import users

    monkeypatch.setattr(users, "trust_of", lambda _: action())


def throw(error: BaseException) -> Any:
    def action() -> None:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (NotApproved("no approval", next="sign it"), 1, "not_approved"),
        (Usage("no such thing", next="another"), 2, "usage"),
        (RuntimeError("oh"), 1, "internal"),
        (ModuleNotFoundError("No module named 'duckdb'", name="duckdb"), 1, "not_installed"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_become_one_sentence_and_an_exit_code(
    error: BaseException,
    code: int,
    word: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Any,
) -> None:
    (tmp_path / "interlock.toml").touch()
    monkeypatch.delenv("INTERLOCK_DEBUG", raising=False)
    plant(monkeypatch, throw(error))
    words = ["users", "list", "--project", str(tmp_path)]
    assert cli.run([*words, "--json"]) == code
    said = capsys.readouterr()
    assert said.err == ""
    assert (msgspec.json.decode(said.out)["error"]["code"] if word else said.out) == word
    assert cli.run(words) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    assert said.err.startswith("error: ") == bool(word)


def test_a_developer_can_see_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "interlock.toml").touch()
    monkeypatch.setenv("INTERLOCK_DEBUG", "1")
    plant(monkeypatch, throw(RuntimeError("oh")))
    with pytest.raises(RuntimeError, match="oh"):
        cli.run(["users", "list", "--project", str(tmp_path)])


@pytest.mark.parametrize(
    ("words", "message", "step"),
    [
        (["depoy"], "there is no command 'depoy'", "interlock deploy --help"),
        (["keys", "generat"], "there is no command 'keys generat'", "interlock keys generate --help"),
        (["jobs", "lst"], "there is no command 'jobs lst'", "interlock jobs list --help"),
        (["data", "zzz", "x"], "there is no command 'data zzz'", "interlock data --help"),
        (["zzz"], "there is no command 'zzz'", "interlock --help"),
        (["deploy", "m:1"], 'Command "deploy" parameter --to requires an argument.', "interlock deploy --help"),
        (
            ["deploy", "m:1", "--to", "e", "--as", "champion", "--bogus"],
            "Unknown option: --bogus.",
            "interlock deploy --help",
        ),
        (["users", "add", "rita", "--role", "king"], "", "interlock users add --help"),
    ],
)
def test_wrong_usage_leads_to_help(
    words: list[str], message: str, step: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([*words, "--json"]) == 2
    error = msgspec.json.decode(capsys.readouterr().out)["error"]
    assert error["code"] == "usage"
    assert message in error["message"]
    assert error["next"] == step


def test_a_reply_is_one_document_or_text(capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, Any]] = [
        {"name": "a", "value": 0.123456789, "list": ["x", "y"]},
        {"name": "[b]", "value": None, "list": []},
    ]
    reply = output.items(rows, ("name", "value", "list"), empty="nothing", next="first\nsecond")
    output.show(reply, as_json=True)
    assert msgspec.json.decode(capsys.readouterr().out) == {"items": rows}
    output.show(reply, as_json=False)
    text = capsys.readouterr().out
    for part in ("0.12346", "x, y", "[b]", "Next:  first\n       second\n"):
        assert part in text
    output.show(output.items([], ("name",), empty="nothing"), as_json=False)
    assert capsys.readouterr().out == "nothing\n"


HEAVY = ("sqlalchemy", "alembic", "duckdb", "pandas", "numpy", "sklearn", "scipy", "dbos", "httptools", "rich.markdown")


@pytest.mark.parametrize("words", ["--help", "keys list", "keys generate --help", "users list", "params m", "nonsense"])
def test_light_commands_import_nothing_heavy(words: str, tmp_path: Any) -> None:
    code = (
        "import sys; from interlock.cli import run; run(sys.argv[1:]); "
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, *words.split()], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []", done.stderr
