"""What every gateway says of itself: the revisions it obeys, the arms that answer. One file a slot, replaced whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from interlock.core.errors import Corrupt
from interlock.core.files import write_atomic


class EndpointStatus(msgspec.Struct, frozen=True):
    """How one gateway serves one endpoint."""

    revision: int
    digest: str
    error: str | None = None
    """Why the newest revision is not obeyed, or an arm does not answer."""
    arms: dict[str, int] = {}
    """Replicas that answer, by arm."""
    pinned: dict[str, str] = {}
    """Parameters that this gateway's environment pins, and the variable that does it."""
    parameters: dict[str, Any] = {}
    """The values in force."""
    replicas: dict[str, str] = {}
    """Replicas that this gateway asks, with their package digests: they may not stop, whatever the newest route says."""


class GatewayStatus(msgspec.Struct, frozen=True):
    """One gateway worker."""

    slot: int
    pid: int
    gateway: str
    at: str
    endpoints: dict[str, EndpointStatus] = {}

    @property
    def alive(self) -> bool:
        """Whether the process that wrote it lives."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True  # it lives, as somebody else
        return True


def write(folder: Path, status: GatewayStatus) -> None:
    """Acknowledge: replace the slot's file."""
    write_atomic(folder / f"{status.slot}.json", msgspec.json.encode(status))


def withdraw(folder: Path, slot: int, pid: int) -> None:
    """Take the slot's file away, unless the worker that follows has written its own by now."""
    path = folder / f"{slot}.json"
    if path.exists() and msgspec.json.decode(path.read_bytes(), type=GatewayStatus).pid == pid:
        path.unlink()


def read_live(folder: Path) -> list[GatewayStatus]:
    """The gateways that live, by slot.

    Raises:
        Corrupt: a file is not what a gateway writes.
    """
    return [status for status in read_last(folder) if status.alive]


def read_last(folder: Path) -> list[GatewayStatus]:
    """What the gateways said last, by slot; those that were killed too.

    Raises:
        Corrupt: a file is not what a gateway writes.
    """
    found = []
    for path in folder.glob("*.json"):
        if not path.stem.isdigit():
            continue
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=GatewayStatus))
        except msgspec.DecodeError as error:
            raise Corrupt(f"{path} is no gateway status: {error}", next=f"remove it: rm {path}") from error
    return sorted(found, key=lambda status: status.slot)
