"""Who listens on a port: asked before ours is opened, so that a busy one is named instead of shared."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from interlock.core.errors import Misconfigured


def is_free(host: str, port: int) -> bool:
    """Whether the address can be bound by a newcomer."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((host, port))
        except OSError:
            return False
    return True


def holder_of(port: int) -> str:
    """`program (pid N)` of whoever listens on the port, as far as this user may see it."""
    wanted = f"{port:04X}"
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[1].endswith(":" + wanted) and fields[3] == "0A":
                    inodes.add(f"socket:[{fields[9]}]")
    for pid in filter(str.isdigit, os.listdir("/proc")) if inodes else ():
        with contextlib.suppress(OSError):
            for link in Path("/proc", pid, "fd").iterdir():
                if os.readlink(link) in inodes:
                    words = Path("/proc", pid, "cmdline").read_bytes().split(b"\0")
                    return f"{b' '.join(words[:4]).decode(errors='replace').strip()} (pid {pid})"
    return "another program"


def require_free(host: str, port: int, setting: str) -> None:
    """Check an address before using it.

    Raises:
        Misconfigured: somebody listens there; the message names them.
    """
    if not is_free(host, port):
        raise Misconfigured(
            f"port {port} on {host} is taken by {holder_of(port)}",
            next=f"stop it, or set another {setting} in interlock.toml",
        )
