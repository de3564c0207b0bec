"""What is evaluated against what: registered versions, the champion in service, and the rows that neither has seen."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from interlock.core.errors import Corrupt, Usage
from interlock.core.project import Project
from interlock.core.settings import Settings
from interlock.core.trust import read_trust
from interlock.evaluation.evaluate import Candidate, Log, choices, evaluate
from interlock.evaluation.held_out import HeldOut, held_out
from interlock.evaluation.report import Report, Subject, decode, encode
from interlock.model.package import read_manifest, verify
from interlock.registry import evaluations
from interlock.registry.packages import PackageStore
from interlock.registry.routes import CHAMPION, RouteDocument, RouteStore
from interlock.registry.versions import Versions
from interlock.store.database import Database
from interlock.training.extract import read


def registered(versions: Versions, name: str) -> Candidate:
    """A version by its name `model:version`, its package verified.

    Raises:
        NotFound: there is none.
    """
    version = versions.named(name)
    package = verify(versions.packages.find(version.package_digest), version.package_digest)
    return Candidate(package, Subject(version.model, version.version, version.package_digest))


def champion(project: Project, settings: Settings) -> tuple[Candidate | None, float]:
    """The version of this model that an endpoint serves as champion, and the threshold deployed there.

    None, and the project's threshold, if no endpoint serves the model.
    """
    routes, packages = RouteStore(project.routes), PackageStore(project.packages)
    for endpoint in routes.endpoints():
        route = routes.read(endpoint, read_trust(project.trust, project.root_fingerprint())).reviewed
        for arm in route.arms:
            if arm.name == CHAMPION and arm.model == settings.model:
                package = verify(packages.find(arm.package_digest), arm.package_digest)
                subject = Subject(arm.model, arm.version, arm.package_digest)
                return Candidate(package, subject), route.parameters.threshold
    return None, settings.endpoint.threshold


def endpoint_of(project: Project, model: str, named: str = "") -> RouteDocument | None:
    """The route of the endpoint `named`, else of the one that serves a model, without an override; None if nobody does.

    Raises:
        NotFound: there is no such endpoint.
        Usage: several serve the model, and none is named.
    """
    routes = RouteStore(project.routes)
    names = [named] if named else routes.endpoints()
    if not names:
        return None
    trust = read_trust(project.trust, project.root_fingerprint())
    read = [routes.read(name, trust).reviewed for name in names]
    found = [one for one in read if named or model in {arm.model for arm in one.arms}]
    if len(found) > 1:
        several = ", ".join(one.endpoint for one in found)
        raise Usage(f"{several} serve {model}", next=f"name one: --endpoint {found[0].endpoint}")
    return found[0] if found else None


def takes(project: Project, packages: Iterable[str]) -> dict[str, set[str]]:
    """The names of the inputs that each of these packages takes."""
    store = PackageStore(project.packages)
    return {
        one: {spec.name for spec in read_manifest(store.find(one), one).signature.inputs}
        for one in sorted(set(packages))
    }


class Comparison(msgspec.Struct, frozen=True):
    """A candidate's held-out rows, and the other version if it can be judged by them; else `note` says why not."""

    rows: HeldOut
    against: Candidate | None
    note: str


def compare_on(project: Project, candidate: Candidate, against: Candidate | None) -> Comparison:
    """The rows that neither of the two has seen, as the ids of their extracts tell."""
    manifest = candidate.package.manifest
    frame = read(project, manifest.lineage.extract_digest)
    if against is None:
        return Comparison(held_out(manifest, frame), None, "there was no champion to compare with")
    if against.subject.package_digest == candidate.subject.package_digest:
        return Comparison(held_out(manifest, frame), None, f"{against.subject.name} is the champion itself")
    other = against.package.manifest
    if other.lineage.origin:  # what it was trained on is unknown, so no row can be left out for that
        return Comparison(held_out(manifest, frame), against, "")
    rows = held_out(manifest, frame, other, read(project, other.lineage.extract_digest))
    if not len(rows.table):
        note = f"{against.subject.name} was trained on all {rows.left_out} held-out rows"
        return Comparison(held_out(manifest, frame), None, note)
    return Comparison(rows, against, "")


def evaluate_version(project: Project, database: Database, name: str, against: str, log: Log) -> tuple[Report, str]:
    """Evaluate a registered version again, beside `against` (empty: the champion), and keep the report; with its digest.

    Raises:
        NotFound: there is no such version.
    """
    settings, versions = project.settings(), Versions(database, PackageStore(project.packages))
    candidate = registered(versions, name)
    other, threshold = champion(project, settings)
    if against:
        other = registered(versions, against)
    found = compare_on(project, candidate, other)
    proof = decode(evaluations.latest(database, candidate.subject.package_digest).report).proof
    if proof is None:
        raise Corrupt(f"{candidate.subject.name} was registered without a round-trip proof", next="train it again")
    report = evaluate(
        candidate, found.rows, found.against, choices(settings, threshold), log, proof=proof, note=found.note
    )
    with database.write() as connection:
        digest = evaluations.store(
            connection,
            encode(report),
            candidate.subject.package_digest,
            report.against.package_digest if report.against else None,
            report.created,
        )
    return report, digest
