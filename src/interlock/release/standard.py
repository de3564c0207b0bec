"""The release standard: a version's newest evidence held against `[standard]`, kept as evidence of kind `standard`.

The document holds no time and nothing that changes while the evidence stays, so that two reviewers sign the same digest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Literal

import msgspec

from interlock.core.clock import Clock, SystemClock, iso
from interlock.core.errors import Misconfigured, NotFound, Refused
from interlock.core.hashing import canonical, digest
from interlock.core.project import Project, snake
from interlock.evaluation import numbers
from interlock.evaluation.diff import Diff
from interlock.evaluation.diff import decode as decode_diff
from interlock.evaluation.evaluate import Candidate
from interlock.evaluation.loadtest import LoadTest
from interlock.evaluation.numbers import Number, Source
from interlock.evaluation.report import Report, Subject
from interlock.evaluation.report import decode as decode_report
from interlock.evaluation.sides import Setup
from interlock.evaluation.skew import Skew
from interlock.evaluation.subjects import registered
from interlock.evaluation.verdicts import Facts, Line, Missing, check_names, lines
from interlock.registry import evaluations, evidence
from interlock.registry.evidence import Evidence
from interlock.registry.packages import PackageStore
from interlock.registry.routes import CHAMPION, RouteDocument, RouteStore
from interlock.registry.versions import Versions
from interlock.release import audit
from interlock.release.users import trust_of
from interlock.store.database import Database
from interlock.warehouse.skew import has_log

SHADOWED = """
select count(distinct date_trunc('hour', received_at)) as hours, count(*) as n from interlock.TABLE
where role = 'shadow' and outcome = 'answered' and package_digest = $package
"""


class Judged(msgspec.Struct, frozen=True):
    """Digests of what was judged; None: there was none, or none that holds for what is in force."""

    package: str
    evaluation: str | None = None
    diff: str | None = None
    loadtest: str | None = None
    skew: str | None = None


class Verdict(msgspec.Struct, frozen=True):
    """The document. `against`: the champion, None where there is none; `standard`: digest of `[standard]` as it was."""

    format: Literal[1]
    subject: Subject
    against: Subject | None
    standard: str
    judged: Judged
    passed: bool
    rules: tuple[Line, ...]

    @property
    def failed(self) -> list[Line]:
        """The rules that are in the way; what is not known is."""
        return [one for one in self.rules if one.verdict in ("fail", "unknown")]


class Bench:
    """What lies before the judge: a version, the champion that it would replace, and the evidence about both."""

    def __init__(
        self, project: Project, database: Database, name: str, against: str = "", named: Judged | None = None
    ) -> None:
        """`against`: MODEL:V instead of the champion; `named`: evidence instead of the newest, where it names some.

        Raises:
            NotFound: there is no such version or evidence. Tampered: a package or a document was altered.
        """
        self.project, self._database = project, database
        versions = Versions(database, PackageStore(project.packages))
        self.candidate = registered(versions, name)
        self.route = self._served()
        arm = self.route.arm(CHAMPION) if self.route else None
        other = against or (f"{arm.model}:{arm.version}" if arm else "")
        champion = registered(versions, other) if other else None
        same = champion and champion.subject.package_digest == self.package
        self.champion = None if same else champion
        self.missing: dict[Source, Missing] = {}
        if self.champion is None:
            why = f"{name} is the champion itself" if same else "there is no champion yet"
            self.missing = dict.fromkeys(("change", "diff", "skew", "log"), Missing("skipped", why))
        named = named or Judged(self.package)
        self.diff = self._diff(named.diff)
        self.loadtest = self._document("loadtest", named.loadtest, f"interlock loadtest {name}")
        self.skew = self._document("skew", named.skew, f"interlock skew {name}") if self.champion else None

    @property
    def package(self) -> str:
        """The candidate's digest."""
        return self.candidate.subject.package_digest

    def report(self) -> tuple[str, Report | None]:
        """Digest of the newest evaluation, and what it says, if it was made at the threshold that is deployed.

        Raises:
            NotFound: there is none.
        """
        name = self.candidate.subject.name
        again = f"interlock evaluate {name}" + (f" --against {self.champion.subject.name}" if self.champion else "")
        found = evaluations.latest(self._database, self.package)
        report = decode_report(found.report)
        deployed = self.route.parameters.threshold if self.route else self.project.settings().endpoint.threshold
        if report.threshold != deployed:
            why = f"it was evaluated at the threshold {report.threshold:g}, and {deployed:g} is deployed"
            self.missing |= dict.fromkeys(("evaluation", "change"), Missing("unknown", why, again))
            return found.digest, None
        beside = report.against.package_digest if report.against else None
        if self.champion and beside != self.champion.subject.package_digest:
            why = report.note or f"it was evaluated beside {report.against.name if report.against else 'nobody'}"
            self.missing["change"] = Missing("unknown", f"{why}; the champion is {self.champion.subject.name}", again)
        return found.digest, report

    def shadowed(self) -> dict[str, Number]:
        """How long the candidate has answered as a shadow."""
        from interlock.warehouse.ducklake import open_warehouse  # here: a standard that does not ask needs no DuckDB

        if self.route is None or self.champion is None:
            return {}
        hours = n = 0
        try:
            with closing(open_warehouse(self.project.warehouse, read_only=True)) as warehouse:
                if has_log(warehouse, self.route.endpoint):
                    sql = SHADOWED.replace("TABLE", f"predictions_{snake(self.route.endpoint)}")
                    (row,) = warehouse.query(sql, {"package": self.package}).to_pylist()
                    hours, n = row["hours"], row["n"]
        except NotFound:
            pass  # no warehouse: nobody was ever asked anything
        return {"shadow_hours": Number(hours, n=n)}

    def _served(self) -> RouteDocument | None:
        """The route of the first endpoint whose champion is a version of this model."""
        routes, trust = RouteStore(self.project.routes), trust_of(self.project)
        found = (routes.read(endpoint, trust, past=True) for endpoint in routes.endpoints())
        model = self.candidate.subject.model
        return next((one for one in found if one.arms and one.arm(CHAMPION).model == model), None)

    def _document(self, kind: Literal["diff", "loadtest", "skew"], named: str | None, command: str) -> Evidence | None:
        against = self.champion.subject.package_digest if kind == "diff" and self.champion else None
        if named:
            return evidence.about(self._database, named, kind, self.package)
        found = evidence.latest(self._database, kind, self.package, against)
        if found is None:
            self.missing[kind] = Missing("unknown", f"there is no {kind} of it yet", command)
        return found

    def _diff(self, named: str | None) -> Evidence | None:
        """The named diff; or the newest to the champion, if both sides are under the parameters and rules in force.

        One that is named and tells of something else is judged as missing.
        """
        if self.champion is None and named is None:
            return None
        mine = self.candidate.subject.name
        command = f"interlock diff {self.champion.subject.name if self.champion else 'CHAMPION'} {mine}"
        found = self._document("diff", named, command)
        if found and self.champion and (why := self._outdated(decode_diff(found.document), self.champion)):
            self.missing["diff"] = Missing("unknown", why, command)
            return found if named else None
        return found

    def _outdated(self, diff: Diff, champion: Candidate) -> str:
        """Why a diff does not tell what would change now; empty: it does."""
        if diff.before.subject.package_digest != champion.subject.package_digest:
            return f"the diff is to {diff.before.subject.name}, and the champion is {champion.subject.name}"
        if self.route is None:
            return ""
        for side, one in ((diff.before, champion), (diff.after, self.candidate)):
            now = Setup(one, self.route.parameters, self.route.rules, {}).said()
            if side.parameters != now.parameters:
                return f"the diff has {one.subject.name} under other parameters than are in force"
            if side.rules_digest != now.rules_digest:
                return f"the diff has {one.subject.name} under other rules than are in force"
        return ""


def judge(bench: Bench, clock: Clock | None = None) -> Verdict:
    """Hold a version's evidence against the standard.

    Raises:
        Misconfigured: there is none, or it names an unknown number.
    """
    standard = bench.project.settings().standard
    if standard is None:
        raise Misconfigured("interlock.toml has no [standard]", next="write one; see docs/reference/standard.md")
    manifest = bench.candidate.package.manifest
    check_names(standard, manifest.signature.task)
    evaluated, report = bench.report()
    found = {"package_mb": Number(sum(one.size for one in manifest.files) / 1e6)}
    if report is not None:
        found |= numbers.of_report(report)
        if "change" in bench.missing:
            found.pop("drift", None)
    if bench.diff is not None and "diff" not in bench.missing:
        found |= numbers.of_diff(decode_diff(bench.diff.document), (clock or SystemClock()).now())
    if bench.loadtest is not None:
        found |= numbers.of_load_test(evidence.decode(bench.loadtest, LoadTest))
    if bench.skew is not None:
        found |= numbers.of_skew(evidence.decode(bench.skew, Skew))
    if any(rule.metric == "shadow_hours" for rule in standard.rules):
        found |= bench.shadowed()
    made = tuple(lines(standard, manifest.signature.task, Facts(report, found, bench.missing)))
    seen = [one.digest if one else None for one in (bench.diff, bench.loadtest, bench.skew)]
    return Verdict(
        format=1,
        subject=bench.candidate.subject,
        against=bench.champion.subject if bench.champion else None,
        standard=digest(canonical(standard)),
        judged=Judged(bench.package, evaluated, *seen),
        passed=all(one.verdict in ("pass", "skipped") for one in made),
        rules=made,
    )


def keep(database: Database, actor: str, verdict: Verdict, clock: Clock | None = None) -> str:
    """Store a verdict; its digest, or that of the newest one where that says the same of the same evidence."""
    before = evidence.latest(database, "standard", verdict.judged.package)
    if before is not None and not list(differences(evidence.decode(before, Verdict), verdict)):
        return before.digest
    against = verdict.against.package_digest if verdict.against else None
    with audit.transaction(database) as connection:
        now = iso((clock or SystemClock()).now())
        found = evidence.store(connection, "standard", canonical(verdict), verdict.judged.package, against, now, actor)
        said = {"digest": found, "passed": verdict.passed}
        audit.append(connection, actor, "standard", verdict.subject.name, None, said)
    return found


def differences(before: Verdict, after: Verdict) -> Iterator[str]:
    """What changed between two verdicts on a version: the champion, the standard, evidence, or what a rule says of it."""
    if before.against != after.against:
        yield "the champion"
    if before.standard != after.standard:
        yield "the standard"
    for name in Judged.__struct_fields__:
        if getattr(before.judged, name) != getattr(after.judged, name):
            yield f"the {name}"
    said = {one.rule: one.verdict for one in before.rules}
    for one in after.rules:
        if said.get(one.rule, one.verdict) != one.verdict:
            yield f"{one.rule} ({said[one.rule]}, now {one.verdict})"


def require(verdict: Verdict) -> None:
    """Nothing.

    Raises:
        Refused: the standard is not met; names the rules, with their numbers.
    """
    if verdict.passed:
        return
    name, failed = verdict.subject.name, verdict.failed
    said = "; ".join(f"{one.rule}: {one.sentence}" for one in failed)
    made = next((one.next for one in failed if one.next), "")
    step = made or f"an emergency takes a reviewer and an admin: interlock approve {name} --override REASON"
    raise Refused(
        f"{name} does not meet the release standard ({len(failed)} of {len(verdict.rules)} rules): {said}", next=step
    )
