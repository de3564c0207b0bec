"""Who acts. The gate never guesses: approve, reject and everything that moves traffic name a person."""

from __future__ import annotations

import getpass
import os
from typing import Annotated

from cyclopts import Parameter

from interlock.core.errors import Usage

VARIABLE = "INTERLOCK_USER"
As = Annotated[str | None, Parameter(name="--as", help=f"Who acts: the name of a key (or {VARIABLE}).")]
"""Type of a command's keyword parameter `as_`."""


def acting(name: str | None) -> str:
    """The person who acts: `--as`, else `INTERLOCK_USER`; there is no default.

    Raises:
        Usage: neither is there.
    """
    found = name or os.environ.get(VARIABLE)
    if not found:
        raise Usage(
            "nobody acts: this needs the name of the person who signs", next="add --as NAME, or set INTERLOCK_USER"
        )
    return found


def somebody(name: str | None) -> str:
    """As `acting`, but falls back on the user of the operating system: for what needs no signature."""
    return name or os.environ.get(VARIABLE) or getpass.getuser()
