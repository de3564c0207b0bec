"""Versions: numbers, labels derived from what changed, releases, and evaluations kept beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import update

from interlock.core.clock import FixedClock, parse_time
from interlock.core.errors import NotFound, Tampered, Usage
from interlock.core.hashing import digest
from interlock.model import package
from interlock.model.manifest import Author, Lineage, Manifest, Runtime, SplitRecord
from interlock.model.signature import Input, Signature
from interlock.registry import evaluations
from interlock.registry.packages import PackageStore
from interlock.registry.versions import Version, Versions
from interlock.store import tables
from interlock.store.database import Database

replace = msgspec.structs.replace
NOW = "2026-11-01T08:00:00Z"


def manifest(run: str, **changed: Any) -> Manifest:
    lineage = Lineage(
        run=run,
        extract="",
        sql="select 1",
        variables={},
        snapshot=17,
        extract_digest="sha256:e",
        split=SplitRecord("time", 7, "sha256:9af3c01e55", {"train": 1}),
        recipe="def train(): ...",
        recipe_digest="sha256:r",
        features_digest="sha256:f",
        parameters={"depth": 3},
        git_commit=None,
    )
    lineage = replace(lineage, **{key: changed.pop(key) for key in list(changed) if hasattr(lineage, key)})
    made = Manifest(
        format=1,
        model="churn",
        signature=Signature("binary", (Input("a", "float"),), (0, 1)),
        runtime=Runtime("sklearn", "model/model.skops"),
        feature_columns=("a",),
        threshold=0.5,
        rtol=1e-9,
        python="3.11.2",
        libraries={"numpy": "2"},
        author=Author("ann", "sha256:k"),
        created=NOW,
        lineage=lineage,
        files=(),
    )
    return replace(made, **changed)


@pytest.fixture
def versions(tmp_path: Path) -> Iterator[Versions]:
    database = Database(tmp_path / "control.db", create=True)
    yield Versions(database, PackageStore(tmp_path / "packages"), FixedClock(parse_time(NOW)))
    database.close()


def register(versions: Versions, made: Manifest) -> Version:
    prepared = versions.packages.folder.parent / made.lineage.run
    prepared.mkdir(exist_ok=True)
    if not (prepared / package.MANIFEST).exists():
        package.write(prepared, made, {})
    found = package.verify(prepared).digest
    versions.packages.publish(prepared, found)
    with versions.database.write() as connection:
        return versions.register(connection, made, found)


def test_the_label_says_what_changed_since_the_version_before(versions: Versions) -> None:
    wider = Signature("binary", (Input("a", "float"), Input("b", "float")), (0, 1))
    made = [
        manifest("1"),
        manifest("2", snapshot=18),
        manifest("3", parameters={"depth": 4}),
        manifest("4", signature=wider, recipe_digest="sha256:s"),
        manifest("5", signature=wider, recipe_digest="sha256:s", libraries={"numpy": "3"}),
    ]
    labels = [register(versions, one).label for one in made]
    assert labels == [
        "0.0.0-17.9af3c01e",
        "0.0.0-18.9af3c01e",
        "0.0.1-17.9af3c01e",
        "0.1.2-17.9af3c01e",
        "0.1.3-17.9af3c01e",
    ]
    assert [one.version for one in versions.all("churn")] == [1, 2, 3, 4, 5]


def test_new_categories_change_the_interface_only_where_others_are_refused(versions: Versions) -> None:
    def made(run: str, *categories: str, unseen: Any) -> Manifest:
        spec = Input("a", "category", unseen=unseen, categories=categories)
        return manifest(run, signature=Signature("binary", (spec,), (0, 1)))

    answered = [register(versions, made(run, *run, unseen="allow")).interface for run in ("x", "xy")]
    refused = [register(versions, made(run, *run, unseen="refuse")).interface for run in ("v", "vw")]
    assert (answered, refused) == ([0, 0], [1, 2])


def test_registering_a_run_twice_is_one_version(versions: Versions) -> None:
    assert register(versions, manifest("1")) == register(versions, manifest("1"))
    assert len(versions.all()) == 1


def test_releases_count_approved_versions_and_stay(versions: Versions) -> None:
    for run in ("1", "2", "3"):
        register(versions, manifest(run))
    with versions.database.write() as connection:
        assert [versions.set_release(connection, "churn", number) for number in (3, 1, 3)] == [1, 2, 1]
    assert [one.release for one in versions.all()] == [2, 0, 1]


def test_versions_are_found_by_name_and_by_package(versions: Versions) -> None:
    made = register(versions, manifest("1"))
    assert versions.named("churn:1") == versions.of_package(made.package_digest) == made
    assert versions.of_package("sha256:0") is None
    with pytest.raises(NotFound, match="no version churn:2"):
        versions.named("churn:2")
    with pytest.raises(Usage):
        versions.named("churn")


def test_a_difference_is_told_by_its_field(versions: Versions) -> None:
    first = register(versions, manifest("1"))
    nullable = Signature("binary", (Input("a", "float", nullable=True),), (0, 1))
    second = register(versions, manifest("2", signature=nullable, parameters={"depth": 3, "rate": 0.1}))
    changes = {one.field: (one.before, one.after) for one in versions.diff(first, second)}
    assert changes == {
        "signature.inputs.a.nullable": (False, True),
        "lineage.run": ("1", "2"),
        "lineage.parameters.rate": (None, 0.1),
    }


def test_evaluations_are_kept_under_their_digest(versions: Versions) -> None:
    with versions.database.write() as connection:
        for content, against in ((b'{"n":1}', None), (b'{"n":2}', "sha256:b"), (b'{"n":1}', None)):
            assert evaluations.store(connection, content, "sha256:a", against, NOW) == digest(content)
    assert evaluations.latest(versions.database, "sha256:a").report == '{"n":2}'
    assert evaluations.read(versions.database, digest(b'{"n":1}')).against_digest is None
    with pytest.raises(NotFound):
        evaluations.latest(versions.database, "sha256:a", "sha256:c")


def test_an_edited_evaluation_is_noticed(versions: Versions) -> None:
    with versions.database.write() as connection:
        found = evaluations.store(connection, b'{"auc":0.6}', "sha256:a", None, NOW)
        connection.execute(update(tables.evaluations).values(report='{"auc":0.9}'))
    with pytest.raises(Tampered):
        evaluations.read(versions.database, found)
