"""One house for the whole session: packages are expensive to train, and most tests only read them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.house import House, obey, running


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Two approved packages: `first` (as two replicas) and `second`; a gateway in front of them."""
    house = House(tmp_path_factory.mktemp("served"))
    house.packages_made = [house.package(1), house.package(2)]
    for found in house.packages_made:
        house.approve(found)
    first, second = house.packages_made
    with running(house.serve(first, 0), house.serve(first, 1), house.serve(second, 0), house.gateway()):
        yield house
    house.close()


@pytest.fixture
def champion(served: House) -> House:
    """The house with the first package as champion of all traffic."""
    obey(served, served.route({"champion": (served.packages_made[0], 10_000)}).revision)
    return served
