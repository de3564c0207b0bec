"""What MLflow is told of a model that came from there: tags once it is approved, the alias of the champion.

The decision stands before MLflow hears of it: a server that does not answer changes nothing, and is told and audited.
"""

from __future__ import annotations

from collections.abc import Callable

from interlock.core.errors import InterlockError
from interlock.model.manifest import Origin
from interlock.model.package import read_manifest
from interlock.registry.mlflow import Server
from interlock.registry.packages import PackageStore
from interlock.registry.routes import CHAMPION, Arm, RouteDocument
from interlock.release import audit
from interlock.store.database import Database

Names = dict[str, str]
"""A model and its version in MLflow's registry, as its API calls them."""


def tell_approved(database: Database, packages: PackageStore, actor: str, version: str, package_digest: str) -> str:
    """Tag what became the version `MODEL:V`. What came of it in a sentence; empty if that is no model of MLflow's."""
    origin = _origin(packages, package_digest)
    if origin is None:
        return ""
    return _tell(database, actor, version, origin, "tags", lambda server: _tag(server, origin, version, package_digest))


def tell_champion(
    database: Database, packages: PackageStore, actor: str, before: RouteDocument, after: RouteDocument
) -> str:
    """Move the alias `champion` to the model that became champion, and from the one that is no longer; as above."""
    old, new = _champion(before), _champion(after)
    if new is None or (old and old.package_digest == new.package_digest):
        return ""
    left = _origin(packages, old.package_digest) if old else None
    taken, version, digest = _origin(packages, new.package_digest), f"{new.model}:{new.version}", new.package_digest

    def put(server: Server) -> None:
        if taken:
            _tag(server, taken, version, digest)
            server.send("POST", "registered-models/alias", name=taken.name, alias=CHAMPION, version=taken.version)

    def take(server: Server) -> None:
        if left and CHAMPION in server.aliases(left.name, left.version):
            server.send("DELETE", "registered-models/alias", name=left.name, alias=CHAMPION)

    said = [_tell(database, actor, version, taken, f"alias {CHAMPION}, tags", put)] if taken else []
    if left and (taken is None or (taken.server, taken.name) != (left.server, left.name)):
        said.append(_tell(database, actor, version, left, f"no alias {CHAMPION} any more", take))
    return "; ".join(said)


def _champion(route: RouteDocument) -> Arm | None:
    return next((arm for arm in route.arms if arm.name == CHAMPION), None)


def _origin(packages: PackageStore, package_digest: str) -> Origin | None:
    """Where a package came from, if that is MLflow's registry."""
    try:
        origin = read_manifest(packages.find(package_digest), package_digest).lineage.origin
    except (
        InterlockError
    ):  # a way back from a damaged package stays open; whoever serves or judges it says what is wrong
        return None
    return origin if origin and origin.name else None


def _names(origin: Origin) -> Names:
    return {"name": origin.name, "version": origin.version}


def _tag(server: Server, origin: Origin, version: str, package_digest: str) -> None:
    for key, value in (("interlock.version", version), ("interlock.package_digest", package_digest)):
        server.send("POST", "model-versions/set-tag", **_names(origin), key=key, value=value)


def _tell(
    database: Database, actor: str, version: str, origin: Origin, what: str, call: Callable[[Server], None]
) -> str:
    about = {"server": origin.server, **_names(origin)}
    try:
        call(Server(origin.server))
    except InterlockError as error:
        audit.append(database, actor, "mlflow", version, None, {**about, "error": error.message})
        return f"MLflow was not told ({what} of {origin.name} {origin.version}): {error.message}"
    audit.append(database, actor, "mlflow", version, None, {**about, "told": what})
    return f"MLflow was told: {what} of {origin.name} {origin.version}"
