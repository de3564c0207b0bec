"""`interlock doctor` on a project in which something real is broken: it says what, and what mends it."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.house import House

from interlock.core.clock import FixedClock, SystemClock, iso
from interlock.deploy import doctor
from interlock.deploy.doctor import Check, examine
from interlock.deploy.status import UpStatus, write_up
from interlock.deploy.supervisor import ProcessStatus, State
from interlock.release import audit
from interlock.store.database import Database
from interlock.warehouse.ducklake import open_warehouse


@pytest.fixture
def house(tmp_path: Path) -> House:
    made = House(tmp_path / "project")
    audit.append(Database(made.project.database, create=True), "ann", "init", "project")
    open_warehouse(made.project.warehouse, create=True).close()
    return made


def wrong(house: House) -> list[Check]:
    """The findings; each with its mending step."""
    found = [one for one in examine(house.project) if not one.ok]
    assert all(one.mend for one in found)
    return found


def only(house: House) -> Check:
    """The one finding."""
    (found,) = wrong(house)
    return found


def test_a_sound_project_has_no_finding_and_says_how_to_look_into_the_warehouse(house: House) -> None:
    assert wrong(house) == []
    told = [one.found for one in examine(house.project)]
    assert any("ATTACH 'ducklake:sqlite:" in text and "READ_ONLY" in text for text in told)


def test_a_busy_port_names_its_holder(house: House) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", house.port))
        holder.listen()
        assert f"(pid {os.getpid()})" in only(house).found


def test_a_disk_down_to_the_reserve_is_found(house: House) -> None:
    text = house.project.config.read_text()
    house.project.config.write_text(text.replace("reserve_mb = 1\n", "reserve_mb = 1000000000\n"))
    assert only(house).check == "disk"


def test_a_clock_that_went_back_is_found(house: House) -> None:
    found = [one for one in examine(house.project, FixedClock(datetime(2020, 1, 1, tzinfo=UTC))) if not one.ok]
    assert [one.check for one in found] == ["clock"]


def test_a_journal_that_nobody_reads_is_found(house: House) -> None:
    folder = house.project.journals / "gateway"
    folder.mkdir(parents=True)
    (folder / "segment.seg").write_bytes(bytes(100))
    assert only(house).mend == "interlock up"
    house.project.locks.mkdir()
    with (house.project.locks / "recorder.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert wrong(house) == []


def test_a_segment_in_quarantine_is_found(house: House) -> None:
    (house.project.state / "quarantine").mkdir()
    (house.project.state / "quarantine" / "one.seg").touch()
    assert "1 damaged segment(s)" in only(house).found


@pytest.mark.parametrize(
    ("state", "last_exit", "found"),
    [("waiting", 1, True), ("starting", 1, True), ("ready", 1, False), ("starting", None, False)],
)
def test_a_process_that_ended_and_is_not_up_again_is_found(
    house: House, state: State, last_exit: int | None, found: bool
) -> None:
    child = ProcessStatus("gateway-0", state, os.getpid(), 3, last_exit, "gateway-0.log")
    serve = house.project.settings().serve
    ports = (serve.gateway_port, serve.grpc_port, serve.control_port)
    write_up(house.project, UpStatus(os.getpid(), iso(SystemClock().now()), serve.host, *ports, False, [child]))
    told = [one for one in wrong(house) if one.check == "processes"]
    assert len(told) == found
    assert all("gateway-0 ended with 1" in one.found and "gateway-0.log" in one.mend for one in told)


def test_whoever_sits_on_the_write_lock_is_named(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LOCK_SECONDS", 0.05)
    with (house.project.warehouse / "write.lock").open("r+") as lock:
        lock.truncate()
        lock.write("process 4711")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "process 4711" in only(house).found


def flip_a_bit(house: House) -> None:
    data = bytearray(house.project.trust.read_bytes())
    data[len(data) // 2] ^= 1
    house.project.trust.write_bytes(data)


def edit_the_trail(house: House) -> None:
    connection = sqlite3.connect(house.project.database)
    connection.execute("update audit set actor = 'bob'")
    connection.commit()
    connection.close()


def lose_the_warehouse(house: House) -> None:
    (house.project.warehouse / "catalog.sqlite").unlink()


@pytest.mark.parametrize(
    ("harm", "checks"),
    [
        (flip_a_bit, {"trust", "packages", "libraries"}),
        (edit_the_trail, {"audit"}),
        (lose_the_warehouse, {"warehouse"}),
    ],
)
def test_what_was_harmed_is_found_and_the_other_looks_go_on(
    house: House, harm: Callable[[House], None], checks: set[str]
) -> None:
    harm(house)
    found = examine(house.project)
    assert {one.check for one in found if not one.ok} == checks
    assert {"ports", "disk", "clock", "locks", "warehouse", "trust", "audit"} <= {one.check for one in found}


@pytest.fixture
def served(house: House) -> House:
    package = house.package()
    house.approve(package)
    house.route({"champion": (package, 10_000)})
    return house


def test_other_libraries_than_those_of_the_training_are_found(served: House) -> None:
    found = only(served)
    assert (found.check, "instead of 3.11" in found.found) == ("libraries", True)
    assert "pip install -r" in found.mend


def test_a_served_package_that_was_altered_or_lost_is_found(served: House) -> None:
    (folder,) = served.project.packages.iterdir()
    source = folder / "features.py"
    source.write_bytes(source.read_bytes() + b"\n")
    assert [one.found for one in wrong(served) if one.check == "packages"] == [
        f"features.py in {folder.name} is not the file that manifest.json lists"
    ]
    shutil.rmtree(folder)
    assert "packages" in {one.check for one in wrong(served)}


def test_an_approval_that_was_altered_is_found(served: House) -> None:
    (file,) = served.project.approvals.glob("*/*.json")
    file.write_bytes(file.read_bytes().replace(b'"keyid"', b'"kezid"'))
    assert {one.check for one in wrong(served)} == {"trust", "libraries"}
