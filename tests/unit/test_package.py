"""A package is verified whole before anything in it is used: one altered bit anywhere is enough to refuse it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.core.errors import NotFound, Tampered
from interlock.core.hashing import canonical, digest
from interlock.model.manifest import Author, FileEntry, Lineage, Manifest, Runtime, SplitRecord
from interlock.model.package import MANIFEST, Package, read_manifest, verify, write
from interlock.model.signature import Input, Signature

FILES = {"features.py": b"def f(raw):\n    return raw\n", "model/model.skops": bytes(range(64)), "empty.txt": b""}
MADE = Manifest(
    format=1,
    model="churn",
    signature=Signature("binary", (Input("a", "float", nullable=True), Input("c", "category")), ("no", "yes")),
    runtime=Runtime("sklearn", "model/model.skops"),
    feature_columns=("a", "c"),
    threshold=0.3,
    rtol=1e-9,
    python="3.11.2",
    libraries={"numpy": "2.4"},
    author=Author("ann", "sha256:k"),
    created="2026-11-01T08:00:00.000000Z",
    lineage=Lineage(
        run="r",
        extract="",
        sql="select 1",
        variables={"until": "2026-01-01"},
        snapshot=17,
        extract_digest="sha256:e",
        split=SplitRecord("time", 7, "sha256:s", {"train": 8, "test": 2}),
        recipe="def train(): ...",
        recipe_digest="sha256:r",
        features_digest="sha256:f",
        parameters={"rate": 0.1},
        git_commit=None,
    ),
    files=(),
)


@pytest.fixture(scope="module")
def good() -> Iterator[Package]:
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "package"
        directory.mkdir()
        write(directory, MADE, FILES)
        yield verify(directory)


@pytest.fixture
def copy(good: Package, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good.directory, tmp_path / "copy"))


def test_what_was_written_comes_back(good: Package) -> None:
    assert good.files == FILES
    assert msgspec.structs.replace(good.manifest, files=()) == MADE
    assert read_manifest(good.directory, good.digest) == good.manifest
    assert verify(good.directory, good.digest) == good


def test_the_same_content_has_the_same_digest(good: Package, tmp_path: Path) -> None:
    assert write(tmp_path, MADE, FILES) == good.digest


@given(st.data())
def test_one_altered_bit_anywhere_is_refused(good: Package, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from([MANIFEST, "features.py", "model/model.skops"]))
    content = bytearray((good.directory / path).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with tempfile.TemporaryDirectory() as folder:
        altered = Path(shutil.copytree(good.directory, Path(folder) / "altered"))
        (altered / path).write_bytes(bytes(content))
        with pytest.raises(Tampered):
            verify(altered, good.digest)
        if path != MANIFEST:
            with pytest.raises(Tampered, match=path):
                verify(altered)


@pytest.mark.parametrize("path", [MANIFEST, *FILES])
@pytest.mark.parametrize("edit", [lambda data: data + b"\n", lambda data: data[:-1] or b"x"], ids=["more", "less"])
def test_a_byte_more_or_less_is_refused(copy: Path, path: str, edit: Any) -> None:
    (copy / path).write_bytes(edit((copy / path).read_bytes()))
    with pytest.raises(Tampered):
        verify(copy)


@pytest.mark.parametrize("path", ["extra.py", "model/extra", ".hidden"])
def test_a_file_that_is_not_listed_is_refused(copy: Path, path: str) -> None:
    (copy / path).write_bytes(b"")
    with pytest.raises(Tampered, match="does not list"):
        verify(copy)


def test_a_missing_file_is_refused(copy: Path) -> None:
    (copy / "features.py").unlink()
    with pytest.raises(Tampered, match=r"features\.py is missing"):
        verify(copy)


@pytest.mark.parametrize("path", ["features.py", "model", MANIFEST])
def test_a_link_is_refused_even_to_the_same_content(copy: Path, tmp_path: Path, path: str) -> None:
    os.rename(copy / path, tmp_path / "elsewhere")
    (copy / path).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Tampered):
        verify(copy)


def test_a_link_that_is_not_listed_is_refused(copy: Path) -> None:
    (copy / "loop").symlink_to(copy)
    with pytest.raises(Tampered):
        verify(copy)


def test_what_is_no_plain_file_is_refused(copy: Path) -> None:
    (copy / "empty.txt").unlink()
    (copy / "empty.txt").mkdir()
    with pytest.raises(Tampered, match="plain file"):
        verify(copy)


@pytest.mark.parametrize(
    "path", ["../copy/features.py", "/etc/passwd", "model/../features.py", "./features.py", "", "a//b"]
)
def test_a_path_out_of_the_package_is_refused(copy: Path, path: str) -> None:
    manifest = read_manifest(copy)
    data = (copy / "features.py").read_bytes()
    entry = FileEntry(path, len(data), digest(data))
    rewrite(copy, msgspec.structs.replace(manifest, files=(*manifest.files, entry)))
    with pytest.raises(Tampered, match="no path inside a package"):
        verify(copy)


@pytest.mark.parametrize("changed", [{"format": 2}, {"format": None}, {"surprise": 1}, {"model": "No Name"}])
def test_an_unknown_form_is_refused(copy: Path, changed: dict[str, Any]) -> None:
    rewrite(copy, msgspec.to_builtins(read_manifest(copy)) | changed)
    with pytest.raises(Tampered):
        verify(copy)


def test_another_package_under_this_name_is_refused(good: Package) -> None:
    with pytest.raises(Tampered, match="not sha256:0"):
        verify(good.directory, "sha256:0")
    with pytest.raises(Tampered):
        read_manifest(good.directory, "sha256:0")


def test_no_package_is_not_a_broken_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        verify(tmp_path)


def rewrite(directory: Path, manifest: Any) -> None:
    (directory / MANIFEST).write_bytes(canonical(manifest))
