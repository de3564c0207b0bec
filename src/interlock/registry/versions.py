"""Versions of a model: numbers, labels, and what changed between two of them. The packages are in the repository."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, func, insert, select, update

from interlock.core.clock import Clock, SystemClock, iso
from interlock.core.errors import NotFound, Usage
from interlock.model.manifest import Manifest
from interlock.model.package import read_manifest
from interlock.model.signature import Signature
from interlock.registry.packages import PackageStore
from interlock.store.database import Database
from interlock.store.tables import versions


class Version(msgspec.Struct, frozen=True):
    """A registered version; `label` is `release.interface.logic-data.split`."""

    model: str
    version: int
    package_digest: str
    release: int
    """0 until approved, then k for the k-th approved version of the model."""
    interface: int
    logic: int
    data: int
    split: str
    author: str
    run_id: str
    created_at: str

    @property
    def name(self) -> str:
        """`flight-delay:7`."""
        return f"{self.model}:{self.version}"

    @property
    def label(self) -> str:
        """`1.0.2-17.9af3c01e`: release, interface, logic, then data snapshot and split."""
        return f"{self.release}.{self.interface}.{self.logic}-{self.data}.{self.split}"


class Change(msgspec.Struct, frozen=True):
    """One field of the manifest that differs; None where it is absent."""

    field: str
    before: Any
    after: Any


class Versions:
    """The versions of all models in the control database, over the packages in the repository."""

    def __init__(self, database: Database, packages: PackageStore, clock: Clock | None = None) -> None:
        self.database = database
        self.packages = packages
        self.clock = clock or SystemClock()

    def register(self, connection: Connection, manifest: Manifest, package_digest: str) -> Version:
        """Give a published package the next number of its model, in the caller's write transaction.

        Registering the same run again gives the version it already has.
        """
        row = connection.execute(select(versions).where(versions.c.run_id == manifest.lineage.run)).first()
        if row is not None:
            return _version(row)
        mine = select(versions).where(versions.c.model == manifest.model)
        row = connection.execute(mine.order_by(versions.c.version.desc()).limit(1)).first()
        last = _version(row) if row is not None else None
        interface, logic = (0, 0) if last is None else self._numbers(last, manifest)
        version = Version(
            model=manifest.model,
            version=last.version + 1 if last else 1,
            package_digest=package_digest,
            release=0,
            interface=interface,
            logic=logic,
            data=manifest.lineage.snapshot,
            split=manifest.lineage.split.digest.removeprefix("sha256:")[:8],
            author=manifest.author.name,
            run_id=manifest.lineage.run,
            created_at=iso(self.clock.now()),
        )
        connection.execute(insert(versions).values(msgspec.structs.asdict(version)))
        return version

    def _numbers(self, last: Version, manifest: Manifest) -> tuple[int, int]:
        before = self.manifest(last)
        interface = int(_interface(before.signature) != _interface(manifest.signature))
        logic = int(_logic(before) != _logic(manifest))
        return last.interface + interface, last.logic + logic

    def set_release(self, connection: Connection, model: str, version: int) -> int:
        """Count a version among the approved ones, in the caller's write transaction; its number, kept once given."""
        mine = select(func.max(versions.c.release)).where(versions.c.model == model)
        one = (versions.c.model == model) & (versions.c.version == version)
        release: int = connection.execute(select(versions.c.release).where(one)).scalar_one()
        if release == 0:
            release = connection.execute(mine).scalar_one() + 1
            connection.execute(update(versions).where(one).values(release=release))
        return release

    def get(self, model: str, version: int) -> Version:
        """One version.

        Raises:
            NotFound: there is none of that number.
        """
        with self.database.read() as connection:
            where = (versions.c.model == model) & (versions.c.version == version)
            row = connection.execute(select(versions).where(where)).first()
        if row is None:
            there = ", ".join(one.name for one in self.all(model)) or "none"
            raise NotFound(f"no version {model}:{version} (there: {there})", next="see them: interlock versions list")
        return _version(row)

    def named(self, name: str) -> Version:
        """The version called `model:version`.

        Raises:
            Usage: the name has another form.
            NotFound: there is none.
        """
        model, _, number = name.partition(":")
        if not number.isdecimal():
            raise Usage(f"{name!r} is no MODEL:VERSION", next="name it as `interlock versions list` does")
        return self.get(model, int(number))

    def of_package(self, package_digest: str) -> Version | None:
        """The version that a package is, or None if it is not registered."""
        with self.database.read() as connection:
            row = connection.execute(select(versions).where(versions.c.package_digest == package_digest)).first()
        return None if row is None else _version(row)

    def all(self, model: str = "") -> list[Version]:
        """All versions, or those of one model, the oldest first."""
        query = select(versions).order_by(versions.c.model, versions.c.version)
        if model:
            query = query.where(versions.c.model == model)
        with self.database.read() as connection:
            return [_version(row) for row in connection.execute(query)]

    def manifest(self, version: Version) -> Manifest:
        """The manifest of a version, its digest verified."""
        return read_manifest(self.packages.find(version.package_digest), version.package_digest)

    def diff(self, before: Version, after: Version) -> list[Change]:
        """What differs between the manifests of two versions, field by field."""
        return diff(self.manifest(before), self.manifest(after))


def diff(before: Manifest, after: Manifest) -> list[Change]:
    """The fields that differ, as dotted paths in their order; raw inputs and files go by their names."""
    old, new = _flat("", msgspec.to_builtins(before)), _flat("", msgspec.to_builtins(after))
    return [
        Change(field, old.get(field), new.get(field))
        for field in dict.fromkeys([*old, *new])
        if old.get(field) != new.get(field)
    ]


def _flat(path: str, value: Any) -> dict[str, Any]:
    named = isinstance(value, list | tuple) and value and all(isinstance(one, dict) for one in value)
    if named:
        value = {one.get("name") or one.get("path"): one for one in value}
    if not isinstance(value, dict):
        return {path: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(f"{path}.{key}" if path else key, inner)
    return found


def _interface(signature: Signature) -> Signature:
    """The signature as clients depend on it: where unseen categories are answered, the known ones are no part of it."""
    inputs = (msgspec.structs.replace(one, categories=()) if one.unseen == "allow" else one for one in signature.inputs)
    return msgspec.structs.replace(signature, inputs=tuple(inputs))


def _logic(manifest: Manifest) -> tuple[Any, ...]:
    """What makes another model of the same data: sources, library versions, parameters."""
    lineage = manifest.lineage
    return (lineage.recipe_digest, lineage.features_digest, manifest.libraries, lineage.parameters)


def _version(row: Any) -> Version:
    return Version(**row._mapping)
