"""Every command: its name, where it is, one line of help and an example. Nothing here imports them; running one does.

A name of two words belongs to a family (`keys generate`). A target is `module:function` under `interlock.cli`; the
function gets `session` by keyword, returns a `Reply` (or None when it has printed as it went), and documents its
parameters under `Args:`. The example stands without the word `interlock`.
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
    "users": (GATE, "Who may do what: the signed trust root."),
    "versions": (GATE, "What was trained, what was said about it, where it serves."),
}
"""Commands that have subcommands: group and help."""


class Command(NamedTuple):
    """One line of the table."""

    name: str
    target: str
    group: str
    help: str
    example: str


# fmt: off
COMMANDS = (
    Command("keys generate", "keys:generate", GATE,
            "Make a private key for a person; the public one lies beside it.",
            "keys generate rita"),
    Command("keys list", "keys:list_keys", GATE,
            "List the keys on this machine.",
            "keys list"),
    Command("users add", "users:add", GATE,
            "Trust a person's key, or change what they may do; needs the root key.",
            "users add rita --role reviewer"),
    Command("users list", "users:list_users", GATE,
            "List who is trusted, with their roles.",
            "users list"),
    Command("versions list", "versions:list_versions", GATE,
            "List versions, the last decision about each, and the arms that serve it.",
            "versions list"),
    Command("versions show", "versions:show", GATE,
            "Show one version: its manifest and every decision about it.",
            "versions show flight-delay:1"),
    Command("versions diff", "versions:diff", GATE,
            "Show what differs between the manifests of two versions.",
            "versions diff flight-delay:1 flight-delay:2"),
    Command("audit", "audit:audit", GATE,
            "Show the audit trail, or verify it.",
            "audit verify"),
    Command("deploy", "release:deploy", TRAFFIC,
            "Let an approved version serve as an arm of an endpoint, which is made when missing.",
            "deploy flight-delay:1 --to flight-delay --as champion --as olga"),
    Command("traffic", "release:traffic", TRAFFIC,
            "Share the units out among the arms; as few as possible change arms.",
            "traffic flight-delay champion=80 challenger=20 --as olga"),
    Command("promote", "release:promote", TRAFFIC,
            "Make a challenger the champion; the old champion stands by, warm.",
            "promote flight-delay --as olga"),
    Command("rollback", "release:rollback", TRAFFIC,
            "Go one step back: the champion before becomes champion again.",
            "rollback flight-delay --as olga --reason 'more timeouts'"),
    Command("retire", "release:retire", TRAFFIC,
            "Take a challenger out; its units go back to the champion.",
            "retire flight-delay challenger --as olga"),
    Command("params", "release:params", TRAFFIC,
            "Show the parameters of an endpoint, or change them live.",
            "params flight-delay THRESHOLD=0.4 --as olga"),
    Command("model-server", "model_server:model_server", PROCESSES,
            "Serve one approved package by hand.",
            "model-server --package DIR --approval FILE --trust trust.json --root sha256:… --port 9000"),
)
# fmt: on
