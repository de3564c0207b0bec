"""A backup under live load, put back elsewhere: nothing missing, nothing doubled; and what is damaged is refused."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.commands import SCRIPT, Commands
from tests.gate import Gate
from tests.house import Process, body, running, until

from interlock.core.errors import Tampered
from interlock.core.project import Project
from interlock.deploy.backup import FIXED, SIGNED
from interlock.deploy.restore import restore
from interlock.registry.packages import package_hex
from interlock.registry.routes import replica_name
from interlock.release import audit
from interlock.store.database import HEAD, Database
from interlock.warehouse.ducklake import open_warehouse

E = "flight-delay"
SCRATCH = {"locks", "work", "logs", "sockets"}
"""What a crash may leave behind anyway, or what is of this machine."""


def silent(_: str) -> None:
    """Nobody waits."""


@pytest.fixture
def everybody(gate: Gate) -> Commands:
    return Commands(gate.project.root, gate.people.folder, INTERLOCK_USER="olga")


@pytest.fixture
def served(gate: Gate) -> Gate:
    """A version that serves all traffic; nothing runs yet."""
    name = gate.version(1)
    gate.say(name)
    gate.rollout().deploy(name, E, "champion")
    gate.rollout().change_parameters(E, {"TIMEOUT_SECOND": "20"})
    open_warehouse(gate.project.warehouse, create=True).close()
    return gate


def processes(project: Project, package: str) -> list[Process]:
    """Model server, gateway and recorder."""
    folder = package_hex(package)
    socket = project.make_sockets() / replica_name(package, 1)
    server = Process(
        "model_server", "--package", str(project.packages / folder), "--approval", str(project.approvals / folder),
        "--trust", str(project.trust), "--root", project.root_fingerprint(), "--socket", str(socket),
    )  # fmt: skip
    return [
        server,
        *(Process(*words, "--project", str(project.root)) for words in (("gateway", "--slot", "0"), ("recorder",))),
    ]


@contextmanager
def load(url: str, held: list[str]) -> Iterator[None]:
    """Requests one after the other; the ids that were answered."""
    over = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=30) as client:
            while not over.is_set():
                answer = client.post(f"{url}/v2/models/{E}/infer", json=body(2))
                if answer.status_code == 200:
                    held.append(answer.headers["x-interlock-prediction-id"])

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_a_backup_under_load_is_whole_elsewhere(served: Gate, everybody: Commands, tmp_path: Path) -> None:
    project, file, held = served.project, tmp_path / "b.tar", list[str]()
    package = served.versions.named(f"{E}:1").package_digest
    url = f"http://127.0.0.1:{project.settings().serve.gateway_port}"
    with running(*processes(project, package)), load(url, held):
        until(lambda: len(held) > 200, what="200 answers")
        before = list(held)
        made = everybody.json("backup", str(file))
        last = held[-1]
        until(lambda: held[-1] != last, what="it goes on")
    assert made["bytes"] > 0
    assert not list(project.work.glob("backup-*"))
    assert b"PRIVATE KEY" not in file.read_bytes()
    there = tmp_path / "elsewhere"
    put = everybody.json("restore", str(file), "--to", str(there))
    assert {one["check"] for one in put["checks"] if not one["ok"]} <= {"journals", "libraries", "ports"}
    other = Commands(there, served.people.folder)
    recorder = Process("recorder", "--project", str(there))
    with running(recorder):
        (tmp_path / "ids.txt").write_text("\n".join(before))
        found = other.json("reconcile", E, "--ids", str(tmp_path / "ids.txt"), "--wait", "20")
    assert (found["whole"], found["missing"], found["duplicates"], found["lost"]) == (True, 0, 0, 0)
    assert found["checked"] == len(before)
    assert found["backlog"]["quarantined"] == 0
    assert other.json("explain", before[0], "--rerun")["rerun"]["reproduced"]
    shutil.rmtree(project.sockets, ignore_errors=True)


def test_killed_in_the_middle_it_leaves_nothing_that_is_taken(
    served: Gate, everybody: Commands, tmp_path: Path
) -> None:
    big = served.project.state / "quarantine" / "big.seg"
    big.parent.mkdir()
    with big.open("wb") as file:
        file.truncate(3 << 30)
    words = [str(SCRIPT), "backup", str(tmp_path / "b.tar")]
    one = subprocess.Popen(words, cwd=served.project.root, env=everybody.environment, stderr=subprocess.PIPE)
    (half,) = until(
        lambda: [path for path in tmp_path.glob(".b.tar.*") if path.stat().st_size > 1 << 20], what="half of it"
    )
    one.send_signal(signal.SIGKILL)
    one.communicate()
    assert not (tmp_path / "b.tar").exists()
    with pytest.raises(Tampered, match="no whole backup"):
        restore(half, tmp_path / "there", "olga", silent)
    assert not (tmp_path / "there").exists()
    big.unlink()
    everybody.json("backup", str(tmp_path / "b.tar"))  # the next one tidies up
    assert not list(served.project.work.glob("backup-*"))


def test_what_was_altered_is_refused_and_nothing_is_overwritten(
    served: Gate, everybody: Commands, tmp_path: Path
) -> None:
    file, there = tmp_path / "b.tar", tmp_path / "there"
    everybody.json("backup", str(file))
    assert everybody.refused("backup", str(file))["code"] == "conflict"
    whole = file.read_bytes()
    for at in (0, 600, 700, len(whole) // 2, len(whole) - 5000, len(whole) - 1):
        flipped = bytearray(whole)
        flipped[at] ^= 1
        file.write_bytes(flipped)
        with pytest.raises(Tampered):
            restore(file, there, "olga", silent)
    file.write_bytes(whole[:-600])
    with pytest.raises(Tampered):
        restore(file, there, "olga", silent)
    file.write_bytes(whole)
    assert not there.exists()
    there.mkdir()
    (there / "mine").touch()
    assert everybody.refused("restore", str(file), "--to", str(there))["message"].endswith("overwrites nothing")
    (there / "mine").unlink()
    everybody.json("restore", str(file), "--to", str(there))
    assert [entry.action for entry in audit.entries(Database(Project(there).database))][-1] == "restore"


def test_no_room_of_the_state_is_forgotten(gate: Gate) -> None:
    """A folder that somebody adds to the project must be kept, or be scratch."""
    state = gate.project.state
    rooms = {
        path.relative_to(state).parts[0]
        for name, value in vars(Project).items()
        if isinstance(value, property) and (path := getattr(gate.project, name)).is_relative_to(state) and path != state
    }
    kept = {name.partition("/")[0] for name in (*SIGNED, *FIXED)} | {"control.db", "warehouse", "journals"}
    assert rooms - kept - SCRATCH == set()


def test_an_upgrade_keeps_a_copy_and_is_told(gate: Gate, everybody: Commands) -> None:
    assert everybody.json("upgrade")["copy"] is None
    with gate.database.write() as connection:
        from alembic import command
        from tests.contract.test_database import scripts

        config = scripts()
        config.attributes["connection"] = connection
        command.downgrade(config, "0003")
    gate.database.close()
    done = everybody.json("upgrade")
    assert (done["before"], done["after"], Path(done["copy"]).name) == ("0003", HEAD, "control.0003.db")
    assert audit.entries(gate.database)[-1].action == "upgrade"
