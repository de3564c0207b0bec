"""Writing files so that a reader, or a crash, never sees half of one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from interlock.core.errors import Conflict


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace `path` by `data` in one step, on disk before the name appears."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    sync_directory(path.parent)


def write_new(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Create `path` with `data`, whole or not at all.

    Raises:
        FileExistsError: somebody wrote it first; their file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.link(name, path)
    finally:
        os.unlink(name)
    sync_directory(path.parent)


def marks(*paths: Path) -> list[object]:
    """What changes whenever one of these files is replaced or written, or a folder gains or loses a name."""
    found: list[object] = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            one = path.stat()
            names = sorted(os.listdir(path)) if stat.S_ISDIR(one.st_mode) else []  # two changes may share one time
            found.append((str(path), one.st_mtime_ns, one.st_ino, one.st_size, names))
    return found


def sync_directory(path: Path) -> None:
    """Make a new name in `path` survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(path: Path, *, timeout: float = 60.0, holder: str = "", shared: bool = False) -> Iterator[float]:
    """Hold the cross-process lock file `path`; yields the seconds waited. The kernel frees it if we die.

    `timeout=0` tries once. `holder` is written into the file, so that others can say who holds it. `shared`: beside others
    who share it.

    Raises:
        Conflict: the lock was not free within `timeout` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        start, pause = time.monotonic(), 0.0005
        while True:
            try:
                fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() - start >= timeout:
                    who = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
                    raise Conflict(f"{path.name} is held by {who}") from None
                time.sleep(pause)
                pause = min(pause * 1.5, 0.02)
        if holder:
            os.ftruncate(handle, 0)
            os.pwrite(handle, holder.encode(), 0)
        yield time.monotonic() - start
    finally:
        os.close(handle)
