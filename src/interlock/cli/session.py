"""What every command gets: the flags that hold everywhere, the project, and who acts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from interlock.cli import output
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
