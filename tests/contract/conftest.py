"""A warehouse of every engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.warehouses import ENGINES

from interlock.warehouse.port import Warehouse


@pytest.fixture(params=ENGINES)
def again(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Warehouse]:
    """Opens the same warehouse as often as one likes, as several processes do."""
    return lambda: ENGINES[request.param](tmp_path / "warehouse")


@pytest.fixture
def warehouse(again: Callable[[], Warehouse]) -> Warehouse:
    return again()
