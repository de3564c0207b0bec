"""The endpoints that this gateway serves, as its verified route documents say; a new revision is taken within a second.

Needs no control plane and no database: signed files are enough. A document that is altered, older than one already seen, or
brings a package without a valid approval is refused, and the one before stays in force. Of a document that is taken the
parameters hold at once; its arms take over when their replicas answer, and until then those before them go on. An arm that
loses its approval while it serves is closed within a second. What was seen once is not forgotten while this process lives, nor
as long as its file of what was seen lies there: revisions of routes and of the trust root, and approvals that were taken back. A
gateway that is started anew also finds there whose arms answered last, and goes on with them. An override in a document ends at
its time by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from interlock.core.assignment import BUCKETS, share
from interlock.core.clock import Clock, iso, parse_time
from interlock.core.errors import InterlockError, NotFound, Refused, Tampered
from interlock.core.files import marks, write_atomic
from interlock.core.trust import SeenTrust, TrustKeeper, TrustRoot
from interlock.gateway.arms import STANDBY, Endpoint, ServedArm, schema_of
from interlock.gateway.metrics import ReplicaState, Snapshot
from interlock.gateway.parameters import check_pinned, effective, pins
from interlock.gateway.rules import compile_rules
from interlock.gateway.upstream import Replica, eject_ailing
from interlock.model.package import read_manifest
from interlock.model.signature import Signature
from interlock.registry.admission import admitted
from interlock.registry.approvals import Approval, Scope, end_of, read_decisions
from interlock.registry.gateways import EndpointStatus
from interlock.registry.packages import PackageStore, package_hex
from interlock.registry.routes import Arm, RouteDocument, RouteStore, Standby

POLL_SECONDS = 0.2
MEET_LOOKS, MEET_SECONDS = 200, 0.01
"""How often, and how many seconds apart, a gateway that starts looks whether the model servers that are there have answered."""
replace = msgspec.structs.replace


class Seen(msgspec.Struct):
    """What a gateway slot has seen, also across restarts."""

    routes: dict[str, tuple[int, str]] = {}
    """Endpoint → revision and its digest."""
    arms: dict[str, int] = {}
    """Endpoint → the last revision whose arms have answered."""
    trust: SeenTrust = SeenTrust()
    taken_back: dict[str, str] = {}
    """Package digest → when its approvals were last taken back: a decision counts also when its file is gone."""


class Endpoints:
    """All endpoints; watches the files and swaps revisions."""

    def __init__(
        self,
        *,
        routes: RouteStore,
        packages: PackageStore,
        approvals: Path,
        trust: Path,
        fingerprint: str,
        sockets: Path,
        seen: Path,
        environment: Mapping[str, str],
        clock: Clock,
    ) -> None:
        self.by_name: dict[str, Endpoint] = {}
        self.last_seq: dict[str, int] = {}
        self.refused: dict[str, str] = {}
        self._routes = routes
        self._packages = packages
        self._approvals = approvals
        self._sockets = sockets
        self._seen_file = seen
        self._seen = msgspec.json.decode(seen.read_bytes(), type=Seen) if seen.exists() else Seen()
        self._trust = TrustKeeper(trust, fingerprint, self._seen.trust)
        self._environment = environment
        self._clock = clock
        self._newest: dict[str, Endpoint] = {}
        self._arms: dict[str, int] = {}
        """Endpoint → the revision whose arms are in force."""
        self._replicas: dict[str, Replica] = {}
        self._looked: dict[str, Any] = {}
        self._written = b""
        self._good: TrustRoot | None = None

    def get(self, name: str) -> Endpoint:
        """The endpoint.

        Raises:
            NotFound: there is none of that name (or none that could be verified).
        """
        found = self.by_name.get(name)
        if found is None:
            why = f": {self.refused[name]}" if name in self.refused else ""
            raise NotFound(f"no endpoint {name!r}{why}")
        return found

    def only(self) -> str:
        """The name of the one endpoint.

        Raises:
            NotFound: there is none, or there are several.
        """
        if len(self.by_name) != 1:
            there = ", ".join(self.by_name) or "none"
            raise NotFound(f"this path means the only endpoint, and there are {there}; say /endpoints/NAME/invocations")
        return next(iter(self.by_name))

    def next_seq(self, name: str) -> int:
        """The number of a request at its receipt, from 1."""
        number = self.last_seq.get(name, 0) + 1
        self.last_seq[name] = number
        return number

    async def watch(self) -> None:
        """Look for new revisions, lost approvals and silent replicas, for ever."""
        while True:
            self.refresh()
            for endpoint in self.by_name.values():
                for served in endpoint.all():
                    eject_ailing(served.replicas)
            await asyncio.sleep(POLL_SECONDS)

    async def meet(self) -> None:
        """Wait until every model server that is there has answered, so that the first client is not turned away."""
        for _ in range(MEET_LOOKS):
            if all(one.live or not one.path.exists() for one in self._asked()):
                break
            await asyncio.sleep(MEET_SECONDS)
        self.refresh()

    def _asked(self) -> list[Replica]:
        """Replicas of arms; shadows keep nobody waiting."""
        held = (*self.by_name.values(), *self._newest.values())
        return [replica for endpoint in held for arm in endpoint.arms.values() for replica in arm.replicas]

    def refresh(self) -> None:
        """Take what is new on disk, and swap to arms that have come up."""
        for name in self._routes.endpoints():
            marker = self._marker(name)
            changed = marker != self._looked.get(name)
            if changed or name in self.refused:
                self._looked[name] = marker
                try:
                    self._take(name)
                    self.refused.pop(name, None)
                except (InterlockError, OSError) as error:
                    self.refused[name] = str(error)
                    if changed:
                        self._judge_again(name)
            newest = self._newest.get(name)
            if newest is not None and newest is not self.by_name.get(name) and newest.live:
                self.by_name[name], self._arms[name] = newest, newest.route.revision
                self._drop_unused()
            if name in self.by_name and self.by_name[name].live:
                self._seen.arms[name] = self._arms[name]
        with contextlib.suppress(OSError):  # the next look tries again
            self._remember()

    def _marker(self, name: str) -> Any:
        """Changes whenever the pointer, the trust root or a decision about a served package does, or something ends."""
        served = [one for held in (self._newest, self.by_name) if name in held for one in held[name].all()]
        decisions = (self._approvals / package_hex(one.arm.package_digest) for one in served)
        watched = (self._routes.folder / name / "current", self._trust.path, *decisions)
        now = self._clock.now()
        ended = [one.ends is not None and one.ends <= now for one in served]
        over = (held[name].route.override for held in (self._newest, self.by_name) if name in held)
        ended += [one is not None and parse_time(one.until) <= now for one in over]
        return ended, marks(*watched)

    def _take(self, name: str) -> None:
        self._good = trust = self._trust.read()
        route = self._routes.read(name, trust)
        digest = self._routes.digest_of(name, route.revision) or ""
        revision, seen = self._seen.routes.get(name, (0, ""))
        if route.revision < revision or (route.revision == revision and seen and digest != seen):
            if name not in self.by_name and self._routes.path(name, revision).exists():
                self._install(name, self._routes.read(name, trust, revision), seen, trust)
            raise Tampered(
                f"route {name} revision {route.revision} is older than revision {revision}, which was served here"
            )
        self._install(name, route, digest, trust)
        self._seen.routes[name] = (route.revision, digest)
        self._seen.trust = self._trust.seen

    def _remember(self) -> None:
        if (seen_now := msgspec.json.encode(self._seen)) != self._written:
            write_atomic(self._seen_file, seen_now)
            self._written = seen_now

    def _install(self, name: str, route: RouteDocument, digest: str, trust: TrustRoot) -> None:
        route = route.at(self._clock.now())
        self._newest[name] = newest = self._built(route, digest, trust)
        current = self.by_name.get(name)
        before = self._resumed(route, digest, trust) if current is None else None
        if before is not None:
            self.by_name[name], self._arms[name] = before, self._seen.arms[name]
        elif current is None or newest.live:
            self.by_name[name], self._arms[name] = newest, route.revision
        else:
            self.by_name[name] = self._meanwhile(route, current.route, digest, trust)
        self._drop_unused()

    def _resumed(self, route: RouteDocument, digest: str, trust: TrustRoot) -> Endpoint | None:
        """The newest revision with the arms that answered before this gateway was started, where those are others."""
        revision = self._seen.arms.get(route.endpoint, route.revision)
        if revision == route.revision:
            return None
        try:
            before = self._routes.read(route.endpoint, trust, revision).at(self._clock.now())
            return self._meanwhile(route, before, digest, trust)
        except InterlockError:
            return None  # they are gone, or may not answer any more

    def _meanwhile(self, route: RouteDocument, before: RouteDocument, digest: str, trust: TrustRoot) -> Endpoint:
        """The newest revision with the arms before it, as long as its own do not answer.

        ACTIVE_MODEL stays as it was where it names an arm that only the newest has, and rules about inputs that only the
        newest has are left out: a kill switch in the same document must never wait.
        """
        parameters = route.parameters
        if parameters.active_model and parameters.active_model not in before.names():
            parameters = replace(parameters, active_model=before.parameters.active_model)
        merged = replace(
            before, revision=route.revision, parameters=parameters, rules=route.rules, previous=route.previous,
            author=route.author, reason=route.reason, time=route.time, allow_version_pin=route.allow_version_pin,
            allow_narrower=route.allow_narrower, risk=route.risk, diff=route.diff, override=route.override,
        )  # fmt: skip
        return self._built(merged, digest, trust, strict=False)

    def _built(self, route: RouteDocument, digest: str, trust: TrustRoot, *, strict: bool = True) -> Endpoint:
        """`strict`: the arms are the document's own, and not those before."""
        pinned = pins(route.endpoint, self._environment)
        asked, route = route, replace(route, parameters=effective(route.parameters, pinned))
        arms = {arm.name: self._arm(route, arm, "serve", trust, strict=strict) for arm in route.arms}
        if route.standby is not None:
            arms[STANDBY] = self._arm(route, _as_arm(route.standby, STANDBY), "serve", trust, strict=False)
        if "FALLBACK" in pinned:
            check_pinned(route.parameters, pinned["FALLBACK"][0], [one.signature for one in arms.values()])
        alone = replace(route, rules=())  # a shadow is asked what the live arm is asked, whatever it knows
        shadows = (self._arm(alone, _as_arm(one, one.name), "shadow", trust, strict=strict) for one in route.shadows)
        return Endpoint(asked, digest, arms, tuple(shadows), pinned)

    def _arm(self, route: RouteDocument, arm: Arm, scope: Scope, trust: TrustRoot, *, strict: bool) -> ServedArm:
        """Verified. What may not serve is refused if it is new and `strict`, else closed."""
        manifest = read_manifest(self._packages.find(arm.package_digest), arm.package_digest)
        strict_here = strict and arm.package_digest not in self._packages_of(route.endpoint)
        signature = manifest.signature
        return ServedArm(
            arm=arm,
            author=manifest.author.name,
            signature=signature,
            schema=schema_of(arm.package_digest, signature),
            replicas=tuple(self._replica(replica, signature) for replica in arm.replicas),
            propensity=share(arm.ranges) / BUCKETS,
            known=tuple(
                (i, one.name, frozenset(one.categories)) for i, one in enumerate(signature.inputs) if one.categories
            ),
            rules=compile_rules(route.rules, signature, strict=strict),
            **self._judge(route, arm, manifest.author.name, scope, trust, strict=strict_here),
        )

    def _judge(
        self, route: RouteDocument, arm: Arm, author: str, scope: Scope, trust: TrustRoot, *, strict: bool
    ) -> dict[str, Any]:
        """What the approvals say of an arm now: how it is approved, until when, or why it is closed."""
        try:
            decisions = self._standing(arm.package_digest, trust)
            now = self._clock.now()
            found = admitted(self._routes, route, arm.package_digest, decisions, author, scope, trust, now)
        except Refused as error:
            if strict:
                raise
            return {"approval": "approved", "closed": error.message, "ends": None}
        own = any(one.predicate.self_approved for one in found)
        ends = min((end for one in found if (end := end_of(one, trust))), default=None)
        return {"approval": "self-approved" if own else "approved", "closed": "", "ends": ends}

    def _judge_again(self, name: str) -> None:
        """While the newest is refused, what is in force obeys decisions, and ends, by the last trust root that was good."""
        for held in (self.by_name, self._newest):
            if name not in held or self._good is None:
                continue
            old, trust = held[name], self._good
            now = old.route.at(self._clock.now())
            route = replace(now, parameters=effective(now.parameters, old.pinned))

            def again(
                one: ServedArm, scope: Scope, route: RouteDocument = route, trust: TrustRoot = trust
            ) -> ServedArm:
                rules = compile_rules(route.rules if scope == "serve" else (), one.signature, strict=False)
                return replace(one, rules=rules, **self._judge(route, one.arm, one.author, scope, trust, strict=False))

            arms = {arm: again(one, "serve") for arm, one in old.arms.items()}
            shadows = tuple(again(one, "shadow") for one in old.shadows)
            held[name] = Endpoint(now, old.digest, arms, shadows, old.pinned)

    def _standing(self, package_digest: str, trust: TrustRoot) -> list[Approval]:
        """All decisions on a package, without approvals from before one that took them back and is gone."""
        decisions = read_decisions(self._approvals, package_digest, trust)
        taken = [one.predicate.time for one in decisions if one.predicate.decision != "approve"]
        if known := self._seen.taken_back.get(package_digest):
            taken.append(known)
        if not taken:
            return decisions
        self._seen.taken_back[package_digest] = last = max(taken, key=parse_time)
        return [
            one
            for one in decisions
            if one.predicate.decision != "approve" or parse_time(one.predicate.time) > parse_time(last)
        ]

    def snapshot(self, journal_bytes: int) -> Snapshot:
        """What `/metrics` shows of routes, rules and replicas."""
        errors: dict[tuple[str, str], int] = {}
        for name, endpoint in self.by_name.items():
            for served in endpoint.arms.values():
                for rule, count in served.rules.errors.items():
                    errors[name, rule] = errors.get((name, rule), 0) + count
        return Snapshot(
            journal_bytes=journal_bytes,
            revisions={name: one.route.revision for name, one in self.by_name.items()},
            rule_errors=errors,
            replicas=[
                ReplicaState(one.name, one.live, one.load, one.ejections, one.batches)
                for one in self._replicas.values()
            ],
        )

    def _packages_of(self, endpoint: str) -> set[str]:
        current = self.by_name.get(endpoint)
        return {one.arm.package_digest for one in current.all()} if current else set()

    def _replica(self, name: str, signature: Signature) -> Replica:
        if name not in self._replicas:
            self._replicas[name] = Replica(name, self._sockets / name, signature)
        return self._replicas[name]

    def _drop_unused(self) -> None:
        endpoints: Iterable[Endpoint] = (*self.by_name.values(), *self._newest.values())
        used = {replica.name for one in endpoints for served in one.all() for replica in served.replicas}
        for name in set(self._replicas) - used:
            self._replicas.pop(name).close()

    def statuses(self) -> dict[str, EndpointStatus]:
        """What to acknowledge, by endpoint; one that could never be verified shows as revision 0 with its error."""
        known = {name: self._status(name, endpoint) for name, endpoint in self.by_name.items()}
        for name, error in self.refused.items():
            known.setdefault(name, EndpointStatus(0, "", error, {}, {}, {}))
        return known

    def _status(self, name: str, endpoint: Endpoint) -> EndpointStatus:
        """An arm that is not in force yet counts as not answering, so that whoever deployed it goes on waiting."""
        newest = self._newest[name]
        status = endpoint.status(self.refused.get(name))
        waiting = {
            one.arm.name: 0
            for one in newest.all()
            if one.arm.package_digest not in {other.arm.package_digest for other in endpoint.all()}
        }
        if not waiting:
            return status
        error = f"the arms before go on: no replica of {', '.join(waiting)} answers yet"
        return replace(status, arms={**status.arms, **waiting}, error=status.error or error)

    def written_at(self) -> str:
        """The time for the acknowledgement."""
        return iso(self._clock.now())


def _as_arm(one: Standby, name: str) -> Arm:
    """Without units of its own."""
    return Arm(name, one.model, one.version, one.package_digest, one.label, one.replicas)
