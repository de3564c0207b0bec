"""A project without a run, and beside it somebody who trains in a notebook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from tests.training_lab import Lab

from interlock.core import signing
from interlock.core.files import write_atomic
from interlock.evaluation.report import Report, decode
from interlock.model.manifest import Manifest
from interlock.registry import evaluations
from interlock.registry.versions import Version
from interlock.release.keys import Keys
from interlock.training import foreign

RAW = ["amount", "visits", "member", "plan"]


class Elsewhere:
    """A project without a run, and beside it somebody who trains in a notebook."""

    def __init__(self, root: Path, name: str = "flight-delay") -> None:
        self.lab, self.name = Lab(root / "project"), name
        config = self.lab.project.config
        config.write_text(config.read_text().replace('model = "flight-delay"', f'model = "{name}"'))
        self.people = Keys(root / "people")
        for name, key in self.lab.house.keys.items():
            write_atomic(self.people.folder / name, signing.private_pem(key), 0o600)
            write_atomic(self.people.folder / f"{name}.pub", signing.public_text(key.public_key()).encode())
        self.rows = pd.read_csv(root / "project" / "customers.csv")
        self.folder = root / "elsewhere"

    @property
    def model(self) -> Any:
        encoder = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["plan"]), remainder="passthrough")
        return make_pipeline(encoder, SimpleImputer(), LogisticRegression(max_iter=2000))

    def register(self, path: Path) -> Version:
        found = foreign.read_saved(path, path.name, self.name)
        return foreign.register(self.lab.project, found, "ann", self.lab.log.append)

    def report(self, version: Version) -> Report:
        return decode(evaluations.latest(self.lab.database, version.package_digest).report)

    def manifest(self, version: Version) -> Manifest:
        return self.lab.versions.manifest(version)
