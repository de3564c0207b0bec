"""What every command gets: the flags that hold everywhere, the project, and who acts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from interlock.cli import output
from interlock.core.errors import Usage
from interlock.core.project import Project


@dataclass(frozen=True)
class Flags:
    """`--json` and `--project` as given."""

    json: bool = False
    directory: Path | None = None

    @property
    def project(self) -> Project:
        """The project of `--project`, `INTERLOCK_PROJECT` or the current directory."""
        return Project.find(self.directory)

    def progress(self, text: str) -> None:
        """Tell the person who waits; on stderr."""
        output.progress(text)


Session = Annotated[Flags, Parameter(parse=False)]
"""Type of a command's keyword parameter `session`."""

VERSION = re.compile(r"(?P<model>[a-z][a-z0-9]*(?:-[a-z0-9]+)*):(?P<version>[1-9][0-9]{0,8})")


def model_version(text: str) -> tuple[str, int]:
    """`flight-delay:7` → its two parts.

    Raises:
        Usage: it is not of that form.
    """
    match = VERSION.fullmatch(text)
    if match is None:
        raise Usage(f"{text!r} is no MODEL:VERSION", next="name it as `interlock versions list` does: flight-delay:1")
    return match["model"], int(match["version"])
