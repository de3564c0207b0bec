"""Roll-out: an operator signs the next revision of an endpoint's route document. Gateways and model servers follow it.

The signed document is written first and the audit trail after it: a kill switch must work while the database does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from interlock.core import signing
from interlock.core.clock import Clock, SystemClock, iso
from interlock.core.errors import Conflict, InterlockError, NotApproved, Refused, Usage
from interlock.core.ids import uuid7_text
from interlock.core.project import Project
from interlock.core.settings import EndpointSettings, Name
from interlock.model.package import read_manifest, verify
from interlock.model.signature import Signature
from interlock.registry import evidence
from interlock.registry.admission import admitted
from interlock.registry.approvals import Scope, read_decisions, require_quorum
from interlock.registry.gateways import read_live
from interlock.registry.packages import PackageStore
from interlock.registry.routes import (
    CHAMPION,
    Arm,
    ExperimentRef,
    Parameters,
    RouteDocument,
    RouteStore,
    Rule,
    Shadow,
    lacking,
    replica_name,
)
from interlock.registry.versions import Versions
from interlock.release import arms, audit, changes, mlflow, proposals, rules
from interlock.release.changes import PLAIN, Terms
from interlock.release.compatible import check_history
from interlock.release.freeze import growing, require_open
from interlock.release.keys import ARM, Keys, prove
from interlock.release.parameters import changed_parameters, check_parameters
from interlock.release.proposals import Signed
from interlock.release.roles import require_role
from interlock.release.users import trust_of
from interlock.store.database import Database

Change = Callable[[RouteDocument], RouteDocument]
replace = msgspec.structs.replace


class Untold(Conflict):
    """A change is in force, and the audit trail could not be told: the control database is away. It waits for `audit mend`."""

    code = "untold"


class Outcome(msgspec.Struct, frozen=True):
    """What a step did."""

    before: RouteDocument
    route: RouteDocument
    told: str = ""
    """What MLflow was told of a champion that came from there."""
    proposal: Signed | None = None
    """Where it waits for more signatures: `route` is not in force."""

    @property
    def changed(self) -> bool:
        """False: everything was so already, and no revision was written."""
        return self.route.revision != self.before.revision


class Rollout:
    """Steps that a person with the role operator takes."""

    def __init__(self, project: Project, actor: str, keys: Keys, clock: Clock | None = None) -> None:
        self.project = project
        self.actor = actor
        self.trust = trust_of(project)
        self.routes = RouteStore(project.routes)
        self._packages = PackageStore(project.packages)
        self._keys = keys
        self._clock = clock or SystemClock()

    @cached_property
    def database(self) -> Database:
        """The control database, opened when it is needed."""
        return Database(self.project.database)

    def deploy(
        self,
        name: str,
        endpoint: str,
        arm: str,
        *,
        buckets: int = 0,
        replicas: int = 1,
        keep_shadow: bool = False,
        reason: str = "",
    ) -> Outcome:
        """Let the approved version `MODEL:V` serve as `arm`; `buckets` of the 10000 are a challenger's share.

        `keep_shadow`: the champion that a new one replaces stays on as a shadow.

        Raises:
            NotFound: no such version or package.
            Refused: not approved, not an operator, a package that was altered, or inputs that changed their type.
            Conflict: the endpoint serves another model; or see `arms.put_champion` and `arms.put_challenger`.
        """
        if not ARM.fullmatch(arm):
            raise Usage(f"{arm!r} is no arm", next="--as champion, challenger, challenger-2 …, shadow …")
        try:
            msgspec.convert(endpoint, Name)
        except msgspec.ValidationError:
            raise Usage(f"{endpoint!r} cannot name an endpoint", next="as in: flight-delay") from None
        version = Versions(self.database, self._packages).named(name)
        digest = version.package_digest
        shadow = arm.startswith("shadow")
        servers = tuple(replica_name(digest, number, shadow=shadow) for number in range(1, replicas + 1))
        new = Arm(arm, version.model, version.version, digest, version.label, servers)

        def change(route: RouteDocument) -> RouteDocument:
            if route.arms and route.arms[0].model != new.model:
                raise Conflict(
                    f"{endpoint} serves the model {route.arms[0].model}; an endpoint serves one model",
                    next=f"choose another endpoint: interlock deploy {name} --to {new.model} --as {arm}",
                )
            signature = verify(self._packages.find(digest), digest).manifest.signature
            self._check_approved(digest, name, "shadow" if shadow else "serve")
            check_history(endpoint, self._served_before(route), signature)
            wanted = self.project.settings().endpoint
            allowed = {"allow_version_pin": wanted.allow_version_pin, "allow_narrower": wanted.allow_narrower}
            route = replace(route, **allowed)
            if not route.arms:
                route = replace(route, parameters=_first_parameters(wanted))
                check_parameters(route.parameters, signature, {CHAMPION})
            if shadow:
                return arms.put_shadow(route, Shadow(*msgspec.structs.astuple(new)[1:6], name=arm))
            if arm == CHAMPION:
                return self._kept(arms.put_champion(route, new), keep_shadow)
            return arms.put_challenger(route, new, buckets)

        return self._step("deploy", endpoint, reason, change)

    def traffic(self, endpoint: str, counts: Mapping[str, int], reason: str = "") -> Outcome:
        """Give every arm its number of buckets, with the fewest units changing arms."""

        def change(route: RouteDocument) -> RouteDocument:
            shared = arms.set_shares(route, counts)
            self._check_all_approved(route, shared)
            return shared

        return self._step("traffic", endpoint, reason, change)

    def promote(self, endpoint: str, arm: str = "", reason: str = "", *, keep_shadow: bool = False) -> Outcome:
        """Make a challenger the champion; the one before stands by, and with `keep_shadow` stays on as a shadow too."""

        def change(route: RouteDocument) -> RouteDocument:
            promoted = arms.promote(route, arm)
            self._check_all_approved(route, promoted)
            return self._kept(promoted, keep_shadow)

        return self._step("promote", endpoint, reason, change)

    def roll_back(self, endpoint: str, reason: str = "") -> Outcome:
        """Exchange the champion and the one before it. Rules that do not fit that one go, for a way back is always open."""

        def change(route: RouteDocument) -> RouteDocument:
            back = arms.roll_back(route)
            self._check_all_approved(route, back)
            return rules.without_misfits(back, self._packages)

        return self._step("rollback", endpoint, reason, change)

    def retire(self, endpoint: str, arm: str = "", reason: str = "") -> Outcome:
        """Take a challenger out; its units go back to the champion."""
        return self._step("retire", endpoint, reason, lambda route: arms.retire(route, arm))

    def change_parameters(
        self, endpoint: str, changes: Mapping[str, str], reason: str = "", terms: Terms = PLAIN
    ) -> Outcome:
        """Change parameters live, `THRESHOLD` → `0.4`; starts no phase. What needs more signatures becomes a proposal.

        Raises:
            Usage: an unknown parameter, or a value that does not fit.
            Refused: a gateway's environment pins one of them; or see `changes.judged`, `changes.overridden`.
        """

        def change(route: RouteDocument) -> RouteDocument:
            for status in read_live(self.project.gateways):
                pinned = status.endpoints[endpoint].pinned if endpoint in status.endpoints else {}
                for name in sorted(set(changes) & set(pinned)):
                    raise Refused(
                        f"{name} is pinned by environment of gateway {status.slot} ({pinned[name]})",
                        next=f"start the gateways without {pinned[name]}",
                    )
            digest = route.arm(CHAMPION).package_digest
            parameters = changed_parameters(route.parameters, changes)
            check_parameters(parameters, self._signature(digest), route.names())
            return replace(route, parameters=parameters)

        return self._step("params", endpoint, reason, change, terms)

    def add_rule(self, endpoint: str, rule: Rule, reason: str = "", terms: Terms = PLAIN) -> Outcome:
        """Put a rule behind those that are there; starts no phase. What needs more signatures becomes a proposal.

        Raises:
            Usage: it does not fit every arm, or takes longer than a rule may.
            Refused: see `changes.judged`, `changes.overridden`.
            Conflict: there is one of that name, or as many as there may be.
        """

        def change(route: RouteDocument) -> RouteDocument:
            after = rules.added(route, rule)
            rules.check_rule(rule, route, self._packages)
            rules.check_time(rule, route, self._packages)
            return after

        return self._step("rules add", endpoint, reason, change, terms)

    def remove_rule(self, endpoint: str, name: str, reason: str = "", terms: Terms = PLAIN) -> Outcome:
        """Take a rule out; see `add_rule`."""
        return self._step("rules remove", endpoint, reason, lambda route: rules.removed(route, name), terms)

    def set_experiment(self, endpoint: str, experiment: str, reason: str = "") -> Outcome:
        """Start the experiment of that id with a fresh salt and phase 1; with an empty id, end the one that runs."""

        def change(route: RouteDocument) -> RouteDocument:
            old = route.experiment
            if not experiment:
                return replace(route, experiment=replace(old, id="", phase=old.phase + 1))
            unit = self.project.settings().endpoint.unit
            return replace(route, experiment=ExperimentRef(uuid7_text(), 1, experiment, unit))

        return self._step("experiment", endpoint, reason, change)

    def _step(self, action: str, endpoint: str, reason: str, change: Change, terms: Terms | None = None) -> Outcome:
        """`terms`: of a change of parameters or rules. Any step ends an override, but for another one."""
        try:
            key, now = self._operator(), self._clock.now()
            before = self._current(endpoint, create=action == "deploy").at(now)
            emergency = terms.override if terms else ""
            base = changes.reviewed(self.routes, self.trust, before)
            start = before if emergency and self.routes.holds(before, self.trust) else base
            after = replace(self._settled(start, change(start)), risk=None, diff=None, override=None)
            if action != "rollback":  # a way back is always open
                self._require_open(before, after)
            if _content(after) == _content(before) and self.routes.holds(before, self.trust):
                return Outcome(before, before)
            after = replace(
                after,
                revision=before.revision + 1,
                author=self.actor,
                reason=emergency or reason,
                time=iso(now),
                previous=self.routes.digest_of(endpoint, before.revision),
            )
            if emergency:
                after = changes.overridden(self.trust, before, base, after, now)
            elif terms:
                diff = evidence.read(self.database, terms.diff) if terms.diff else None
                after = changes.judged(self.routes, self.trust, base, after, diff)
            if lacking(after, (self.trust.key_named(self.actor),), self.trust):
                signed = proposals.propose(self.project, self.database, self.actor, action, before, after, key)
                return Outcome(before, after, proposal=signed)
            self.routes.write(after, key)
        except Refused as error:
            audit.refused(self.database, self.actor, action, endpoint, error.code, error.message)
            raise
        self._tell(action, before, after)
        told = mlflow.tell_champion(self.database, self._packages, self.actor, before, after)
        return Outcome(before, after, told)

    def _tell(self, action: str, before: RouteDocument, after: RouteDocument) -> None:
        try:
            said = arms.difference(before, after)
            audit.append(self.database, self.actor, action, after.endpoint, *said, after.reason)
        except (InterlockError, SQLAlchemyError) as error:
            raise Untold(
                f"revision {after.revision} of {after.endpoint} is signed and in force, but not in the audit trail: {error}",
                next="the gateways obey; once the database is back: interlock audit mend --reason WHY",
            ) from error

    def _operator(self) -> signing.PrivateKey:
        require_role(self.trust, self.actor, "release")
        return prove(self.actor, self.trust, self._keys, self._clock)

    def _current(self, endpoint: str, *, create: bool) -> RouteDocument:
        if create and not self.routes.current(endpoint):
            first = ExperimentRef(uuid7_text(), 0, "", self.project.settings().endpoint.unit)
            return RouteDocument(1, endpoint, 0, (), first, Parameters(), "", "", "", None)
        return self.routes.read(endpoint, self.trust, past=True)

    def _settled(self, before: RouteDocument, after: RouteDocument) -> RouteDocument:
        """What follows from any step: a new phase, a stand-by that may serve, ACTIVE_MODEL still there, rules that fit."""
        experiment = after.experiment
        if experiment == before.experiment and arms.phase_changed(before, after):
            after = replace(after, experiment=replace(experiment, phase=experiment.phase + 1))
        if (
            after.standby != before.standby
            and after.standby
            and not self._approved(after, after.standby.package_digest)
        ):
            after = replace(after, standby=None)
        if after.parameters.active_model and after.parameters.active_model not in after.names():
            raise Conflict(
                f"ACTIVE_MODEL sends all traffic to {after.parameters.active_model}, which would be gone",
                next=f"interlock params {after.endpoint} ACTIVE_MODEL=",
            )
        if (after.arms, after.parameters.fallback) != (before.arms, before.parameters.fallback):
            rules.check_rules(after, self._packages)
        return after

    def _signature(self, package_digest: str) -> Signature:
        return read_manifest(self._packages.find(package_digest), package_digest).signature

    def _served_before(self, route: RouteDocument) -> list[Signature]:
        """The signatures of every version that the endpoint ever served."""
        revisions = [
            self.routes.read(route.endpoint, self.trust, number, past=True) for number in range(1, route.revision + 1)
        ]
        digests = dict.fromkeys(arm.package_digest for revision in revisions for arm in revision.arms)
        return [self._signature(package_digest) for package_digest in digests]

    def _check_approved(
        self, package_digest: str, name: str, scope: Scope = "serve", route: RouteDocument | None = None
    ) -> None:
        """`route`: the document that is to name it, where it gets no more than it has, so that ON_EXPIRY=freeze counts."""
        author = read_manifest(self._packages.find(package_digest), package_digest).author.name
        decisions = read_decisions(self.project.approvals, package_digest, self.trust)
        now = self._clock.now()
        try:
            if route is None:
                require_quorum(decisions, package_digest, author, scope, self.trust, now)
            else:
                next_one = replace(route, revision=route.revision + 1, time=iso(now))
                admitted(self.routes, next_one, package_digest, decisions, author, scope, self.trust, now)
        except NotApproved as error:
            step = f"look at it first: interlock review {name}"
            raise type(error)(f"{name}: {error.message}", next=step) from None

    def _kept(self, route: RouteDocument, keep_shadow: bool) -> RouteDocument:
        """The route with the champion before as a shadow, if that is wanted and may be."""
        if not keep_shadow:
            return route
        kept = arms.keep_shadow(route)
        for one in kept.shadows:
            if one not in route.shadows:
                self._check_approved(one.package_digest, f"{one.model}:{one.version}", "shadow")
        return kept

    def _check_all_approved(self, before: RouteDocument, after: RouteDocument) -> None:
        for arm in after.arms:
            grows = (after.most(arm.package_digest) or 0) > (before.most(arm.package_digest) or 0)
            name = f"{arm.model}:{arm.version}"
            self._check_approved(arm.package_digest, name, route=None if grows else after)

    def _require_open(self, before: RouteDocument, after: RouteDocument) -> None:
        """Whether what gets more traffic may get it now; an override passes."""
        standard = self.project.settings().standard
        for digest in growing(before, after) if standard else []:
            decisions = read_decisions(self.project.approvals, digest, self.trust)
            author, now = read_manifest(self._packages.find(digest), digest).author.name, self._clock.now()
            said = require_quorum(decisions, digest, author, "serve", self.trust, now)
            if standard and said[0].predicate.override is None:
                require_open(standard, self.routes, before, self.trust, now)

    def _approved(self, route: RouteDocument, package_digest: str) -> bool:
        try:
            self._check_approved(package_digest, "the stand-by", route=route)
        except NotApproved:
            return False
        return True


def _content(route: RouteDocument) -> RouteDocument:
    return replace(route, revision=0, author="", reason="", time="", previous=None, risk=None, diff=None)


def _first_parameters(wanted: EndpointSettings) -> Parameters:
    return Parameters(
        timeout_second=wanted.timeout_second,
        retry=wanted.retry,
        threshold=wanted.threshold,
        fallback=wanted.fallback if wanted.fallback is not None else "error",
    )
