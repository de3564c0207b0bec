"""The house keeps its layers, and its contracts notice an import that breaks them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SOURCE = REPOSITORY / "src" / "interlock"


def lint_imports(source_root: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts of pyproject.toml over the package `interlock` below `source_root`."""
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(source_root), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_house_keeps_its_layers() -> None:
    report = lint_imports(SOURCE.parent)
    assert report.returncode == 0, report.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("core/planted.py", "import interlock.model", "arrows go down"),
        ("predlog/planted.py", "import interlock.registry.routes", "arrows go down"),
        ("planted/__init__.py", "", "arrows go down"),
        ("predlog/planted.py", "import duckdb", "the online wing"),
        ("serving/planted.py", "def late():\n    import interlock.evaluation.metrics", "the online wing"),
        ("registry/packages.py", "import interlock.store.tables", "the online wing"),
        ("predlog/journal.py", "import pyarrow", "gateway and model server"),
        ("training/planted.py", "import dbos", "one file speaks to DBOS"),
        ("monitoring/planted.py", "import duckdb", "one file speaks to DuckDB"),
        ("experiments/planted.py", "import interlock.release", "the insight wing"),
        ("evaluation/planted.py", "import interlock.serving", "the offline wing"),
    ],
)
def test_a_wrong_import_is_noticed(file: str, line: str, contract: str, tmp_path: Path) -> None:
    shutil.copytree(SOURCE, tmp_path / "interlock", ignore=shutil.ignore_patterns("__pycache__"))
    planted = tmp_path / "interlock" / file
    planted.parent.mkdir(exist_ok=True)
    with planted.open("a") as source:
        source.write(f"\n{line}\n")
    report = lint_imports(tmp_path)
    broken = [row for row in report.stdout.splitlines() if " BROKEN" in row]
    assert report.returncode == 1
    assert any(row.startswith(contract) for row in broken), report.stdout


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_holds_one_idea(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 450
