"""Every error has a code of its own and a place in the table of status codes."""

from __future__ import annotations

import importlib
import pkgutil

import interlock
from interlock.core.errors import InterlockError
from interlock.core.http import STATUS, status_of


def tree(kind: type[InterlockError]) -> list[type[InterlockError]]:
    return [kind, *(one for child in kind.__subclasses__() for one in tree(child))]


def test_every_error_of_the_core_has_a_status_and_codes_are_unique() -> None:
    for module in pkgutil.walk_packages(interlock.__path__, "interlock."):
        if ".migrations" not in module.name and "processes" not in module.name:
            importlib.import_module(module.name)
    known = tree(InterlockError)
    missing = [kind for kind in known if kind.__module__ == "interlock.core.errors" and kind not in STATUS]
    assert not missing
    assert all(400 <= status_of(kind("x")) < 600 for kind in known)
    codes = [kind.code for kind in known]
    assert len(set(codes)) == len(codes), sorted(code for code in codes if codes.count(code) > 1)
