"""Who changes something by a command leaves an entry of it, and who only looks leaves none."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.gate import Gate

from interlock.cli import run
from interlock.cli.commands import COMMANDS
from interlock.core.clock import SystemClock, iso
from interlock.release import audit

E = "flight-delay"
READS = """
reviews; audit list; audit verify; audit export FILE; as-of NOW; backup TAR; gc --dry-run; upgrade; doctor; data list; data head t
jobs list; jobs show RUN; jobs logs RUN; schedules list; keys list; users list; versions list
versions diff flight-delay:1 flight-delay:2; params flight-delay; rules flight-delay; tokens list; alerts; monitors flight-delay
"""
ELSEWHERE = {
    "init": "test_review: one entry", "evaluate": "test_training", "register": "test_training", "review": "a page, and it reads",
    "experiment": "test_insight_commands", "explain": "it reads", "predictions": "it reads", "reconcile": "it reads",
    "predict": "the log tells", "feedback load": "the log tells", "restore": "test_backup", "demo": "all of these",
    "status": "it reads", "keys generate": "a file of the person, none of the project", "up": "", "down": "", "restart": "",
    "server": "", "worker": "", "gateway": "", "recorder": "", "model-server": "test_cli_gate: a refusal",
    "versions show": "it reads", "schedules show": "it reads", "diff": "test_diff", "loadtest": "test_loadskew",
    "skew": "test_loadskew", "keys add-ssh": "a file of the person", "keys sign-root": "test_trust_changes",
    "users policy": "test_trust_changes", "realised": "it reads", "standard": "test_planted", "sign": "test_changes",
}  # fmt: skip
"""Commands that are not typed here: where their entries are tested, or why they have none. Processes change nothing."""


@pytest.fixture
def typed(gate: Gate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("INTERLOCK_KEYS_DIR", str(gate.people.folder))
    monkeypatch.chdir(gate.project.root)

    def type_(line: str, code: int = 0) -> tuple[Any, list[str]]:
        """The document of a command, and the entries that it left as `action subject by actor`."""
        before = len(audit.entries(gate.database))
        found = run([*shlex.split(line), "--json"])
        said = capsys.readouterr().out
        assert found == code, f"{line}: {said}"
        new = audit.entries(gate.database)[before:]
        assert all(entry.origin for entry in new)
        return msgspec.json.decode(said), [f"{entry.action} {entry.subject} by {entry.actor}" for entry in new]

    return type_


def test_every_change_has_its_entry_and_looking_has_none(gate: Gate, typed: Any, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a\n1\n")
    for seed in (1, 2, 3):
        gate.version(seed)
    gate.people.generate("rita")
    run_id = typed("train --as ann")[0]["id"]
    changes = {
        f"data add {tmp_path}/t.csv --as t": "data add t by",
        f"jobs cancel {run_id}": f"job cancel {E} by",
        f"jobs retry {run_id} --as ann": f"job retry {E} by ann",
        "schedules add weekly --cron '0 3 * * 1' --as ann": "schedule add weekly by ann",
        "schedules pause weekly": "schedule pause weekly by",
        "schedules resume weekly": "schedule resume weekly by",
        "schedules remove weekly": "schedule remove weekly by",
        "users add rita --role reviewer --as ann": "trust rita by ann",
        f"approve {E}:1 --as rob --reason fine": f"approve {E}:1 by rob",
        f"approve {E}:2 --as rita --reason fine": f"approve {E}:2 by rita",
        f"comment {E}:3 --as ann --text hm": f"comment {E}:3 by ann",
        f"request-changes {E}:3 --as rob --reason bad": f"request_changes {E}:3 by rob",
        f"reject {E}:3 --as rob --reason bad": f"reject {E}:3 by rob",
        f"deploy {E}:1 --to {E} --as champion --as olga --no-wait": f"deploy {E} by olga",
        f"deploy {E}:2 --to {E} --as challenger --weight 10% --as olga --no-wait": f"deploy {E} by olga",
        f"traffic {E} champion=80 challenger=20 --as olga --no-wait": f"traffic {E} by olga",
        f"params {E} THRESHOLD=0.4 --as olga --no-wait": f"params {E} by olga",
        f"rules {E} add far --when 'input.stops > 2' --then refuse --reason no --as olga --no-wait": f"rules add {E} by olga",
        f"rules {E} remove far --as olga --no-wait": f"rules remove {E} by olga",
        f"promote {E} --as olga --no-wait": f"promote {E} by olga",
        f"rollback {E} --as olga --no-wait": f"rollback {E} by olga",
        f"deploy {E}:2 --to {E} --as challenger --as olga --no-wait": f"deploy {E} by olga",
        f"retire {E} challenger --as olga --no-wait": f"retire {E} by olga",
        "tokens create shop --as olga": "token create",
        "tokens revoke shop --as olga": "token revoke",
        f"revoke {E}:2 --as rita --reason worse": f"revoke {E}:2 by rita",
        "keys rotate rita --reason yearly --as ann": "rotate key rita by ann",
        "keys revoke rita --reason lost --as ann": "revoke key rita by ann",
    }
    for line, said in changes.items():
        (entry,) = typed(line)[1]
        assert entry.startswith(said), line
    (entry,) = typed(f"approve {E}:1 --as olga --reason fine", code=1)[1]
    assert entry == f"refused {E}:1 by olga"
    places = {
        "NOW": iso(SystemClock().now()),
        "FILE": str(tmp_path / "audit.jsonl"),
        "TAR": str(tmp_path / "b.tar"),
        "RUN": run_id,
    }
    lines = [line.strip() for line in READS.replace("\n", ";").split(";") if line.strip()]
    lines = [" ".join(places.get(word, word) for word in line.split()) for line in lines]
    for line in lines:
        assert typed(line, code=1 if line == "doctor" else 0)[1] == [], line
    typed_here = ["train", *changes, *lines]
    names = {command.name for command in COMMANDS} - ELSEWHERE.keys()
    assert {name for name in names if not any(line.startswith(name) for line in typed_here)} == set()
