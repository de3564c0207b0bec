"""The installed command, as a user types it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

SCRIPT = Path(sys.executable).with_name("interlock")


class Commands:
    """`interlock` in a directory, with the keys of one person or of everybody."""

    def __init__(self, directory: Path, keys: Path, **environment: str) -> None:
        self.directory = directory
        clean = {name: value for name, value in os.environ.items() if not name.startswith("INTERLOCK_")}
        self.environment = {**clean, "INTERLOCK_KEYS_DIR": str(keys), **environment}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            [str(SCRIPT), *words],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def json(self, *words: str) -> Any:
        """The one document of a command that worked."""
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return msgspec.json.decode(done.stdout)

    def refused(self, *words: str, code: int = 1) -> dict[str, str]:
        """The error of a command that did not work."""
        done = self.run(*words, "--json")
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        error: dict[str, str] = msgspec.json.decode(done.stdout)["error"]
        return error
