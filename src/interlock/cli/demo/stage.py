"""The demo's stage: a project, a key directory for each role, and the command line as each of them would type it."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from interlock import cli
from interlock.cli.output import progress
from interlock.core.errors import InterlockError, NotFound, Unavailable
from interlock.core.lifeline import Child
from interlock.core.project import Project

PEOPLE = {"author": "ada", "reviewer": "rita", "operator": "otto"}
READY_SECONDS = 60.0


class CommandFailed(InterlockError):
    """A command of the demo was refused or failed where it should have worked."""

    code = "demo_failed"


class Stage:
    """Runs commands in this process, as `interlock …` would, and keeps `interlock up` alive beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.project = Project(directory)
        self.began = time.monotonic()
        self._up: Child | None = None

    def say(self, text: str) -> None:
        """A line of the story, with the seconds since the beginning."""
        progress(f"[{time.monotonic() - self.began:5.1f} s] {text}")

    def prepare(self) -> None:
        """Copy the example project and give it free ports."""
        source = example()
        shutil.copytree(
            source, self.directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".interlock")
        )
        config = self.directory / "interlock.toml"
        gateway, grpc, control = free_ports(3)
        text = config.read_text(encoding="utf-8")
        ports = f"gateway_port = {gateway}\ngrpc_port = {grpc}\ncontrol_port = {control}\n"
        config.write_text(f"{text}\n[serve]\n{ports}", encoding="utf-8")

    def keys(self, role: str) -> Path:
        """The key directory of a role: nobody finds another's private key."""
        return self.directory / "keys" / role

    @contextlib.contextmanager
    def role(self, role: str) -> Iterator[None]:
        """The environment of a person."""
        mine = {
            "INTERLOCK_USER": PEOPLE[role],
            "INTERLOCK_KEYS_DIR": str(self.keys(role)),
            "INTERLOCK_PROJECT": str(self.directory),
        }
        before = {name: os.environ.get(name) for name in mine}
        os.environ.update(mine)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def attempt(self, role: str, *words: str) -> tuple[int, Any]:
        """Type `interlock WORDS --json` as somebody: exit code and the document it printed."""
        printed = io.StringIO()
        with self.role(role), contextlib.redirect_stdout(printed):
            code = cli.run([*words, "--json"])
        return code, msgspec.json.decode(printed.getvalue())

    def run(self, role: str, *words: str) -> Any:
        """A command that works.

        Raises:
            CommandFailed: it did not.
        """
        code, document = self.attempt(role, *words)
        if code:
            error = document.get("error", {"message": document})
            raise CommandFailed(f"interlock {' '.join(words)}: {error['message']}", next=error.get("next", ""))
        return document

    def up(self) -> None:
        """`interlock up`, tied to this process."""
        self.project.logs.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "interlock.processes.up", "--project", str(self.directory)]
        with (self.project.logs / "up.log").open("ab") as log:
            self._up = Child(command, environment=os.environ, output=log, stderr=subprocess.STDOUT)

    def down(self) -> None:
        """Stop everything, if it runs."""
        if self._up is not None:
            self._up.stop(40.0)
            self._up = None

    def alive(self) -> bool:
        """Whether `interlock up` still lives."""
        return self._up is not None and self._up.poll() is None

    def process(self, prefix: str) -> tuple[str, int, bool]:
        """Name, pid and readiness of the first process whose name begins so; pid 0 while it is being started again."""
        for one in self.run("operator", "status")["up"]["processes"]:
            if one["name"].startswith(prefix):
                return one["name"], one["pid"] or 0, one["state"] == "ready"
        raise NotFound(f"no process {prefix}")

    def until(
        self, condition: Callable[[], bool], what: str, seconds: float = READY_SECONDS, pause: float = 0.3
    ) -> float:
        """Wait for something; the seconds it took.

        Raises:
            Unavailable: it did not come true.
        """
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > seconds:
                raise Unavailable(
                    f"{what} did not come true within {seconds:g} s", next=f"the logs are in {self.project.logs}"
                )
            time.sleep(pause)
        return time.monotonic() - began


def example() -> Path:
    """The example project: package data, or the repository's `examples/` in a source checkout.

    Raises:
        NotFound: this installation has neither.
    """
    inside = Path(str(resources.files("interlock"))) / "examples" / "flights"
    beside = Path(__file__).parents[4] / "examples" / "flights"
    for path in (inside, beside):
        if (path / "interlock.toml").is_file():
            return path
    raise NotFound("this installation has no examples/flights", next='pip install "interlock[all]"')


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
