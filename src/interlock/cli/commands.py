"""Every command: its name, where it is, one line of help and an example. Nothing here imports them; running one does.

A name of two words belongs to a family (`keys generate`). A target is `module:function`; the function gets `session` by
keyword, returns a `Reply` (or None when it has printed as it went), and documents its parameters under `Args:`.
"""

from __future__ import annotations

from typing import NamedTuple

PROJECT = "Project"
TRAIN = "Data and training"
GATE = "The gate"
TRAFFIC = "Traffic"
INSIGHT = "Insight"
PROCESSES = "Processes"
GROUPS = (PROJECT, TRAIN, GATE, TRAFFIC, INSIGHT, PROCESSES)
"""In the order of `interlock --help`."""

FAMILIES = {
    "keys": (GATE, "Private keys of people."),
}
"""Commands that have subcommands: group and help."""


class Command(NamedTuple):
    """One line of the table."""

    name: str
    target: str
    group: str
    help: str
    example: str


COMMANDS = (
    Command(
        "keys generate",
        "interlock.cli.keys:generate",
        GATE,
        "Make a private key for a person; the public one lies beside it.",
        "interlock keys generate rita",
    ),
    Command(
        "keys list",
        "interlock.cli.keys:list_keys",
        GATE,
        "List the keys on this machine.",
        "interlock keys list",
    ),
)
