"""Shared by all tests: hypothesis without a stop-watch (speed is measured in bench/), and in CI with fixed examples."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.gate import Gate

settings.register_profile("house", deadline=None, derandomize="CI" in os.environ)
settings.register_profile("quick", deadline=None, derandomize="CI" in os.environ, max_examples=20)
settings.load_profile("house")  # `make test-base` says quick: there the libraries are the question, not the values


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packages of a gate, trained once."""
    from tests.gate import build  # here: the online wing's tests run without the libraries that it needs

    folder = tmp_path_factory.mktemp("template")
    build(folder)
    return folder


@pytest.fixture
def gate(template: Path, tmp_path: Path) -> Iterator[Gate]:
    """A project with people and keys, before anybody has said anything."""
    from tests.gate import Gate

    gate = Gate(template, tmp_path)
    yield gate
    gate.database.close()
