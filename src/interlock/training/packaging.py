"""Everything a package holds, written from a fitted model and what it was made of."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec
import numpy as np

from interlock.core.clock import SystemClock, iso
from interlock.core.errors import Misconfigured, Refused
from interlock.core.hashing import digest
from interlock.core.project import Project
from interlock.core.settings import Settings
from interlock.core.trust import read_trust
from interlock.model import features, golden, profile
from interlock.model.frames import from_frame
from interlock.model.manifest import FORMAT, Author, Lineage, Manifest, Origin, Runtime
from interlock.model.predictor import needs_no_frame
from interlock.model.runtimes import RUNTIMES, compiled
from interlock.training.compiling import compile_trees
from interlock.training.extract import ExtractRecord
from interlock.training.fit import Fitted
from interlock.training.load import Log, Recipe, git_commit
from interlock.training.split import Split
from interlock.training.table import Table

PROOF_ROWS = 1000


class Made(msgspec.Struct, frozen=True):
    """What a package is made of, besides the fitted model."""

    run: str
    recipe: Recipe | Origin
    """What trained it, or where it was taken from."""
    features_source: str
    parameters: dict[str, Any]
    extract: ExtractRecord
    table: Table
    split: Split


class Built(msgspec.Struct, frozen=True):
    """A package that is not written yet; `proof`: up to 1000 held-out raw rows and training's own answers to them."""

    manifest: Manifest
    files: dict[str, bytes]
    proof: bytes


def author_of(project: Project, name: str) -> Author:
    """The author's name and key as the trust root has them.

    Raises:
        Refused: nobody of that name may train here.
    """
    key = read_trust(project.trust, project.root_fingerprint()).key_named(name)
    if "author" not in key.roles:
        raise Refused(
            f"{name} has not the role author and may not train models",
            next=f"the holder of the root key runs: interlock users add {name} --role author",
        )
    return Author(key.name, key.keyid)


def build(project: Project, settings: Settings, made: Made, fitted: Fitted, author: Author, log: Log) -> Built:
    """Everything that goes into the package.

    Raises:
        RecipeFailed: the model cannot be stored.
        Misconfigured: a requirement is not installed.
        PredictionFailed: it raises on held-out rows.
    """
    signature, parts = fitted.signature, made.split.parts
    engine, threshold = fitted.engine, settings.endpoint.threshold
    runtime, stored = RUNTIMES[fitted.runtime], fitted.stored
    arrays = from_frame(signature.inputs, made.table.frame)
    train = [values[parts["train"]] for values in arrays]
    held_out = [values[parts["test"]] for values in arrays]
    numbers = fitted.predict(held_out)
    some = np.linspace(0, len(numbers) - 1, min(PROOF_ROWS, len(numbers))).astype(int)
    proof = [values[some] for values in held_out]
    labels = made.table.labels.iloc[parts["train"]].tolist()
    faster = compile_trees(fitted, threshold, held_out, numbers, log)
    source = made.features_source.encode()
    own = settings.requirements if needs_no_frame(source, signature) else (*settings.requirements, "pandas")
    serving = pins((*(compiled if faster else runtime).LIBRARIES, *own))
    files = {
        **stored.files,
        **(faster[1] if faster else {}),
        features.FILE: source,
        profile.FILE: profile.encode(profile.build(signature, train, labels, numbers)),
        golden.FILE: golden.encode(
            signature, [values[: golden.ROWS] for values in proof], numbers[some[: golden.ROWS]]
        ),
        "requirements.txt": "".join(f"{name}=={number}\n" for name, number in serving.items()).encode(),
    }
    manifest = Manifest(
        format=FORMAT,
        model=settings.model,
        signature=signature,
        runtime=Runtime(
            fitted.runtime,
            next(iter(stored.files)),
            stored.types,
            engine.classes,
            stored.code,
            faster[0] if faster else None,
        ),
        feature_columns=tuple(engine.columns),
        threshold=threshold,
        rtol=runtime.RTOL,
        python=platform.python_version(),
        libraries=pins((*runtime.LIBRARIES, *serving)),
        author=author,
        created=iso(SystemClock().now()),
        lineage=_lineage(project, made, digest(source)),
        files=(),
    )
    return Built(manifest, files, golden.encode(signature, proof, numbers[some]))


def pins(names: tuple[str, ...]) -> dict[str, str]:
    """The installed version of each distribution.

    Raises:
        Misconfigured: one is not installed.
    """
    try:
        return {name: version(name) for name in sorted(set(names))}
    except PackageNotFoundError as error:
        raise Misconfigured(
            f"requirements names {error.name}, which is not installed", next="install it, or correct its name"
        ) from error


def _lineage(project: Project, made: Made, features_digest: str) -> Lineage:
    extract = made.extract
    origin = made.recipe if isinstance(made.recipe, Origin) else None
    recipe = made.recipe.source if isinstance(made.recipe, Recipe) else ""
    return Lineage(
        run=made.run,
        extract=extract.name,
        sql=extract.sql,
        variables=extract.variables,
        snapshot=extract.snapshot,
        extract_digest=extract.digest,
        split=made.split.record,
        recipe=recipe,
        recipe_digest=origin.digest if origin else digest(recipe.encode()),
        features_digest=features_digest,
        parameters=made.parameters,
        git_commit=git_commit(project.root),
        sources=extract.sources,
        id=extract.id,
        event_time=extract.event_time,
        label=extract.label,
        origin=origin,
    )
