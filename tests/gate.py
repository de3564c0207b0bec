"""A project at the gate: the house's people with their key files, its real packages registered as versions to be judged."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from tests.house import House

from interlock.core import signing
from interlock.core.clock import SystemClock, iso
from interlock.core.files import write_atomic
from interlock.core.hashing import canonical
from interlock.core.project import Project
from interlock.core.settings import Mode
from interlock.core.trust import seal_trust
from interlock.model.package import read_manifest
from interlock.registry import evaluations, gateways
from interlock.registry.packages import PackageStore
from interlock.registry.versions import Versions
from interlock.release import audit
from interlock.release.keys import Keys
from interlock.release.review import Decision, decide
from interlock.release.rollout import Rollout
from interlock.release.users import trust_of
from interlock.store.database import Database

PASSED: dict[str, Any] = {"proof": {"passed": True}}


def build(folder: Path) -> None:
    """What every gate is a copy of: a house of three packages, an empty database, and the keys of its people as files."""
    house = House(folder / "project")
    people = folder / "people"
    people.mkdir(mode=0o700)
    for name, key in {**house.keys, "root-project": house.root_key}.items():
        write_atomic(people / name, signing.private_pem(key), 0o600)
        write_atomic(people / f"{name}.pub", signing.public_text(key.public_key()).encode())
    made = [house.package(seed) for seed in (1, 2, 3)]
    write_atomic(folder / "packages.json", msgspec.json.encode(made))
    Database(house.project.database, create=True).close()


class Gate:
    """ann trains, rob reviews, olga releases. Nothing runs."""

    def __init__(self, template: Path, folder: Path) -> None:
        shutil.copytree(template, folder, dirs_exist_ok=True)
        self.project = Project(folder / "project")
        self.people = Keys(folder / "people")
        self.database = Database(self.project.database)
        self.versions = Versions(self.database, PackageStore(self.project.packages))
        self._packages = msgspec.json.decode((folder / "packages.json").read_bytes(), type=list[str])

    def version(self, seed: int, report: dict[str, Any] | None = PASSED) -> str:
        """Register a package as the next version; its name. `report` None: without an evaluation."""
        found = self._packages[seed - 1]
        manifest = read_manifest(self.project.packages / found.removeprefix("sha256:"), found)
        lineage = msgspec.structs.replace(manifest.lineage, run=found)
        with self.database.write() as connection:
            made = self.versions.register(connection, msgspec.structs.replace(manifest, lineage=lineage), found)
            if report is not None:
                text = canonical({**report, "package": found})
                evaluations.store(connection, text, found, None, iso(SystemClock().now()))
        return made.name

    def file(self, name: str, path: str) -> Path:
        """A file of a version's package."""
        return self.project.packages / self.versions.named(name).package_digest.removeprefix("sha256:") / path

    def trust_everybody(self, mode: Mode) -> None:
        """Give ann every role, in a project of that mode."""
        trust = trust_of(self.project)
        keys = [
            msgspec.structs.replace(key, roles=("author", "reviewer", "operator")) if key.name == "ann" else key
            for key in trust.keys
        ]
        root = msgspec.structs.replace(trust, mode=mode, keys=tuple(keys))
        write_atomic(self.project.trust, seal_trust(root, self.people.load("root-project")))

    def say(self, name: str, by: str = "rob", decision: Any = "approve", scope: Any = "serve") -> Decision:
        """A person decides."""
        return decide(self.project, self.database, by, self.people, name, decision, "looked at it", scope)

    def rollout(self, by: str = "olga") -> Rollout:
        """A person releases."""
        return Rollout(self.project, by, self.people)

    def obeyed(self, revision: int, arms: Sequence[str], pinned: dict[str, str] | None = None, slot: int = 0) -> None:
        """What a live gateway would acknowledge; this process lends its id."""
        status = gateways.EndpointStatus(revision, "", None, dict.fromkeys(arms, 1), pinned or {})
        made = gateways.GatewayStatus(slot, os.getpid(), "gateway", "now", {"flight-delay": status})
        gateways.write(self.project.gateways, made)


def refusals(gate: Gate) -> list[tuple[str, str, str | None]]:
    """Who was refused what, from the trail."""
    found = [entry for entry in audit.entries(gate.database) if entry.action == "refused"]
    return [(entry.actor, entry.subject, entry.after) for entry in found]
