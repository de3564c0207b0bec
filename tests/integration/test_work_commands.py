"""init, data, train, jobs, schedules on state at rest: nothing runs while these are typed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from interlock.cli import run

Ask = Callable[..., Any]


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Type a command with --json in a fresh project; its document. `code` is the exit code that it must have."""
    monkeypatch.setenv("INTERLOCK_KEYS_DIR", str(tmp_path / "keys"))
    monkeypatch.setenv("INTERLOCK_USER", "ann")
    monkeypatch.chdir(tmp_path)
    assert run(["init", "my", "--mode", "solo"]) == 0
    monkeypatch.chdir(tmp_path / "my")
    capsys.readouterr()

    def typed(*words: str, code: int = 0) -> Any:
        assert run([*words, "--json"]) == code
        return msgspec.json.decode(capsys.readouterr().out)

    return typed


def test_a_run_is_queued_listed_called_off_and_queued_again(ask: Ask) -> None:
    made = ask("train", "--param", "learning_rate=0.05", "--param", "note=x=y")
    assert (made["state"], made["author"], made["version"]) == ("queued", "ann", None)
    assert made["spec"]["parameters"] == {"learning_rate": 0.05, "note": "x=y"}
    assert [one["id"] for one in ask("jobs", "list")["items"]] == [made["id"]]
    assert ask("jobs", "cancel", made["id"])["state"] == "cancelled"
    assert ask("jobs", "cancel", made["id"], code=1)["error"]["code"] == "conflict"
    assert ask("jobs", "retry", made["id"])["state"] == "queued"
    assert ask("jobs", "show", made["id"])["attempts"] == []
    assert ask("jobs", "logs", made["id"]) == {"run_id": made["id"], "text": ""}


def test_priorities_and_steps_are_typed(ask: Ask) -> None:
    made = ask("train", "--priority", "5")
    assert (made["priority"], made["origin"]) == (5, None)
    assert ask("jobs", "show", made["id"])["validation"] is None
    ask("jobs", "cancel", made["id"])
    error = ask("jobs", "retry", made["id"], "--from", "train", code=1)["error"]
    assert "has begun no step train (begun: none)" in error["message"]


def test_variables_keep_the_type_that_the_extract_declares(ask: Ask) -> None:
    config = Path("interlock.toml")
    text = config.read_text()
    config.write_text(text.replace("[extract]\n", '[extract]\nvariables = { since = "2013", n = 3 }\n'))
    assert ask("train", "--var", "since=2014", "--var", "n=4")["spec"]["variables"] == {"since": "2014", "n": 4}
    error = ask("train", "--var", "until=1", code=2)["error"]
    assert "no variable until (there: since, n)" in error["message"]


def test_only_authors_train(ask: Ask) -> None:
    assert ask("train", "--as", "bob", code=1)["error"]["code"] == "refused"
    ask("keys", "generate", "rita")
    ask("users", "add", "rita", "--role", "reviewer")
    error = ask("train", "--as", "rita", code=1)["error"]
    assert (error["code"], "role author" in error["message"]) == ("refused", True)
    assert ask("jobs", "list") == {"items": []}


def test_a_schedule_from_its_making_to_its_end(ask: Ask) -> None:
    words = ("--zone", "Europe/Berlin", "--param", "leaves=7", "--priority", "2", "--catch-up", "all")
    made = ask("schedules", "add", "weekly", "--cron", "0 3 * * 1", *words)
    assert (made["priority"], made["catch_up"]) == (2, "all")
    assert ask("schedules", "show", "weekly") == {**made, "ticks": []}
    assert (made["state"], made["author"], made["spec"]["parameters"]) == ("active", "ann", {"leaves": 7})
    assert made["next_tick"].endswith(":00:00.000000Z")
    assert ask("schedules", "add", "weekly", "--cron", "* * * * *", code=1)["error"]["code"] == "conflict"
    assert ask("schedules", "add", "other", "--cron", "never", code=2)["error"]["code"] == "usage"
    assert (ask("schedules", "pause", "weekly")["state"], ask("schedules", "resume", "weekly")["state"]) == (
        "paused",
        "active",
    )
    assert [one["name"] for one in ask("schedules", "list")["items"]] == ["weekly"]
    assert ask("schedules", "remove", "weekly") == {"name": "weekly", "removed": True}
    assert ask("schedules", "list") == {"items": []}


def test_tables_are_loaded_listed_and_shown(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,when,late\n1,2026-01-01 08:00:00,yes\n2,,no\n")
    made = ask("data", "add", str(tmp_path / "t.csv"), "--as", "t")
    assert (made["rows"], made["columns"]) == (2, {"id": "BIGINT", "when": "TIMESTAMP", "late": "VARCHAR"})
    ask("data", "add", str(tmp_path / "t.csv"), "--as", "t")
    assert [(one["name"], one["rows"]) for one in ask("data", "list")["items"]] == [("t", 4)]
    ask("data", "add", str(tmp_path / "t.csv"), "--as", "t", "--replace")
    assert [row["late"] for row in ask("data", "head", "t", "--rows", "5")["items"]] == ["yes", "no"]
    assert ask("data", "head", "u", code=1)["error"]["code"] == "invalid_data"
    assert ask("data", "add", "no-such.csv", "--as", "t", code=1)["error"]["code"] == "not_found"


@pytest.mark.parametrize("command", ["status", "down"])
def test_what_needs_a_running_project_says_so(ask: Ask, command: str) -> None:
    error = ask(command, code=1)["error"]
    assert (error["code"], error["next"]) == ("not_running", "start with interlock up")
