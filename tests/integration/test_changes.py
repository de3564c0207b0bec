"""Changes of parameters and rules as releases: class, signatures, proposals, emergencies, and what gateways make of them."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.gate import Gate

from interlock import cli
from interlock.core import signing
from interlock.core.clock import FixedClock, SystemClock, iso
from interlock.core.errors import Conflict, NotApproved, Refused, Tampered
from interlock.core.policy import Limits, Policy, Quorum
from interlock.evaluation.diff import Changed, Changes, Diff, Labels, Mismatch, Side, Slice, Unsupported, encode
from interlock.evaluation.report import Subject
from interlock.gateway.endpoints import Endpoints
from interlock.monitoring import alerts
from interlock.monitoring.overrides import watch_overrides
from interlock.registry import evidence
from interlock.registry.packages import PackageStore
from interlock.registry.routes import Override, Parameters, RouteDocument, RouteStore
from interlock.release import acts, audit
from interlock.release.asof import as_of
from interlock.release.changes import Terms
from interlock.release.proposals import read_proposal, sign
from interlock.release.review import Terms as Approved
from interlock.release.review import decide
from interlock.release.rollout import Outcome
from interlock.release.rules import make_rule
from interlock.release.users import add_user, set_policy, trust_of
from interlock.serving.door import admit

E = "flight-delay"
TWO = Policy({"medium": Quorum(operators=2), "high": Quorum(operators=3)}, {E: Limits(override_hours=24)})
FAR = make_rule(name="far", when="input.distance > 2000.0", then="refuse", reason="not flown")
FIXED = make_rule(name="fixed", when="input.distance > 2000.0", then="answer", output={"score": 0.1, "label": False})
replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def prepared(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 is champion. rhea and omar may release too, adam is an admin, olga has a second key, svc is a service."""
    gate = Gate(template, tmp_path_factory.mktemp("prepared"))
    for seed in (1, 2):
        gate.say(gate.version(seed))
    gate.rollout().deploy(f"{E}:1", E, "champion")
    roles: dict[str, tuple[tuple[Any, ...], str]] = {
        "rhea": (("reviewer", "operator"), ""), "omar": (("operator",), ""), "olga2": (("operator",), "olga"),
        "svc": (("route",), ""), "svc2": (("route",), ""), "adam": (("admin",), ""), "both": (("operator", "admin"), ""),
    }  # fmt: skip
    for name, (may, owner) in roles.items():
        if name != "rhea":
            gate.people.generate(name)
        add_user(gate.project, gate.people, "ann", name, may, owner=owner)
    set_policy(gate.project, gate.people, "ann", TWO, None)
    gate.database.close()
    return gate.project.root.parent


@pytest.fixture
def serving(prepared: Path, tmp_path: Path) -> Iterator[Gate]:
    """A copy of it."""
    gate = Gate(prepared, tmp_path)
    yield gate
    gate.database.close()


def diff_of(gate: Gate, before: RouteDocument, after: RouteDocument, share: float = 0.05, **more: Any) -> str:
    """A kept diff of a change, as `interlock diff` writes it, in which so many decisions change."""

    def side(route: RouteDocument) -> Side:
        values = msgspec.to_builtins(route.parameters)
        arm = next((arm for arm in route.arms if arm.is_named(values["ACTIVE_MODEL"])), route.arms[0])
        parameters = {name: values[name] for name in ("ACTIVATE", "THRESHOLD", "FALLBACK")}
        return Side(Subject(arm.model, arm.version, arm.package_digest), parameters, route.rules, "", ())

    labels = Labels(0, 0, 0, 0, 0, 1.0)
    changed = more.pop("changed", Changed(int(share * 1000), share, share * 0.9, share * 1.1))
    values: dict[str, Any] = {
        "format": 1, "endpoint": E, "task": "binary", "before": side(before), "after": side(after), "revision": 1,
        "snapshot": 1, "since": None, "until": None, "last": None, "first_event": "", "last_event": "", "requests": 1000,
        "rows": 1000, "unsupported": Unsupported(0, 0.0, ()), "mismatch": Mismatch(900, 0, ()), "speed": (),
        "tolerance": 0.0, "notes": (), "created": "",
        "changes": Changes(
            requests=1000, rows=1000, changed=changed, transitions=(), slices=more.pop("slices", ()), labels=labels,
            value=None, shift=None, examples=(),
        ),
    }  # fmt: skip
    document = encode(Diff(**{**values, **more}))
    with gate.database.write() as connection:
        return evidence.store(connection, "diff", document, "", "", iso(SystemClock().now()), "ann")


def now(gate: Gate) -> RouteDocument:
    return gate.rollout().routes.read(E, trust_of(gate.project))


def threshold(gate: Gate, to: float, by: str = "olga", **terms: str) -> Any:
    return gate.rollout(by).change_parameters(E, {"THRESHOLD": str(to)}, "fewer alarms", Terms(**terms))


def with_threshold(route: RouteDocument, to: float) -> RouteDocument:
    return replace(route, parameters=replace(route.parameters, threshold=to))


def proposed(gate: Gate, to: float = 0.4, share: float = 0.05) -> Path:
    route = now(gate)
    outcome = threshold(gate, to, diff=diff_of(gate, route, with_threshold(route, to), share))
    assert outcome.proposal is not None, outcome.route
    assert now(gate) == route  # nothing is in force
    return Path(outcome.proposal.file)


def gateway(gate: Gate, clock: Any = None) -> Endpoints:
    project = gate.project
    return Endpoints(
        routes=RouteStore(project.routes), packages=PackageStore(project.packages), approvals=project.approvals,
        trust=project.trust, fingerprint=project.root_fingerprint(), sockets=project.root / "none",
        seen=project.gateways / "9.seen.json", environment={}, clock=clock or SystemClock(),
    )  # fmt: skip


def close(made: Endpoints) -> None:
    for endpoint in made.by_name.values():
        for arm in endpoint.all():
            for replica in arm.replicas:
                replica.close()


def obeyed(gate: Gate, at: datetime | None = None) -> Parameters | str:
    """The parameters in force at a gateway that starts now, or why it refuses the route."""

    async def look() -> Parameters | str:
        made = gateway(gate, FixedClock(at) if at else None)
        made.refresh()
        close(made)
        return made.by_name[E].parameters if E in made.by_name else made.refused[E]

    return asyncio.run(look())


class TestClass:
    def test_without_a_policy_all_is_as_before_and_a_diff_gives_the_class(self, serving: Gate) -> None:
        set_policy(serving.project, serving.people, "ann", Policy({"high": Quorum(2)}), None)
        assert threshold(serving, 0.45).route.risk is None
        route = now(serving)
        found = diff_of(serving, route, with_threshold(route, 0.4), 0.2)
        outcome = threshold(serving, 0.4, diff=found)
        assert (outcome.proposal, outcome.route.risk, outcome.route.diff) == (None, "high", found)
        with pytest.raises(Refused, match="not the same parameters before, parameters after"):
            threshold(serving, 0.3, diff=found)

    def test_a_change_of_decisions_takes_the_diff_of_exactly_this_change(self, serving: Gate) -> None:
        route = now(serving)
        with pytest.raises(Refused) as refused:
            threshold(serving, 0.4)
        assert refused.value.next is not None
        assert f"interlock diff {E}:1 --params THRESHOLD=0.4 --endpoint {E}" in refused.value.next
        good = with_threshold(route, 0.4)
        others = {
            "parameters after": (route, with_threshold(route, 0.41)),
            "parameters before": (with_threshold(route, 0.6), good),
            "rules after": (route, replace(good, rules=(FAR,))),
            "version before": (replace(route, arms=(replace(route.arms[0], package_digest="sha256:0"),)), good),
        }
        for word, (before, after) in others.items():
            with pytest.raises(Refused, match=f"not the same .*{word}"):
                threshold(serving, 0.4, diff=diff_of(serving, before, after))
        with pytest.raises(Refused, match="endpoint other"):
            threshold(serving, 0.4, diff=diff_of(serving, route, good, endpoint="other"))
        assert now(serving) == route

    @pytest.mark.parametrize(
        ("more", "risk"),
        [
            ({"share": 0.005}, "low"),
            ({"share": 0.05}, "medium"),
            ({"share": 0.5}, "high"),
            ({"share": 0.0, "changed": Changed(0, 0.0, 0.0, 0.03)}, "medium"),  # a short log proves little
            ({"share": 0.001, "unsupported": Unsupported(200, 0.2, ())}, "high"),
            ({"share": 0.001, "mismatch": Mismatch(900, 90, ())}, "high"),
            ({"share": 0.001, "slices": (Slice("c", "UA", 100, 20, 0.2, 0, 1, 0, 0, None, None, "more"),)}, "high"),
            ({"share": 0.001, "slices": (Slice("c", "UA", 99, 20, 0.2, 0, 1, 0, 0, None, None, "too small"),)}, "low"),
        ],
    )
    def test_the_class_is_of_the_most_that_the_diff_leaves_possible(
        self, serving: Gate, more: dict[str, Any], risk: str
    ) -> None:
        route = now(serving)
        outcome = threshold(serving, 0.4, diff=diff_of(serving, route, with_threshold(route, 0.4), **more))
        assert outcome.route.risk == risk
        assert (outcome.proposal is None) == (risk == "low")

    def test_what_tightens_and_the_way_back_need_one_signature_and_no_diff(self, serving: Gate) -> None:
        first = now(serving)
        rollout = serving.rollout()
        changes: list[Callable[[], Outcome]] = [
            lambda: rollout.change_parameters(E, {"ACTIVATE": "false"}),
            lambda: rollout.change_parameters(E, {"ACTIVATE": "true"}),  # as it was
            lambda: rollout.add_rule(E, FAR),
            lambda: rollout.change_parameters(E, {"ON_EXPIRY": "stop", "TIMEOUT_SECOND": "1"}),
            lambda: rollout.remove_rule(E, "far"),
            lambda: rollout.change_parameters(E, {"ON_EXPIRY": "freeze"}),
        ]
        for change in changes:
            outcome = change()
            assert (outcome.proposal, outcome.changed, outcome.route.risk) == (None, True, None)
        assert now(serving).parameters == replace(first.parameters, timeout_second=1)

    def test_what_no_diff_can_show_is_high(self, serving: Gate) -> None:
        set_policy(serving.project, serving.people, "ann", Policy(), None)
        serving.rollout().change_parameters(E, {"ON_EXPIRY": "stop", "ON_REVOKED": "fallback"})
        serving.rollout().deploy(f"{E}:2", E, "champion")  # under which nothing else ever held
        set_policy(serving.project, serving.people, "ann", TWO, None)
        outcome = serving.rollout().change_parameters(E, {"ON_EXPIRY": "freeze"})
        assert outcome.route.risk == "high"
        assert outcome.proposal is not None


class TestProposal:
    def test_the_last_signature_puts_it_in_force_and_the_record_tells_who(self, serving: Gate) -> None:
        file = proposed(serving)
        before = SystemClock().now()
        with pytest.raises(Refused, match="has not the role operator"):
            sign(serving.project, "rob", serving.people, file)
        for again in ("olga", "olga2"):  # the same person, whatever the key
            assert "1 of the 2 signatures" in sign(serving.project, again, serving.people, file).missing
        waits = read_proposal(serving.project, file)
        assert (waits.may_sign, now(serving).parameters.threshold) == (["rhea", "omar", "both"], 0.5)
        with pytest.raises(Conflict, match="waits for signatures"):
            proposed(serving, 0.3)
        between = SystemClock().now()
        signed = sign(serving.project, "omar", serving.people, file)
        assert (signed.missing, file.exists()) == ("", False)
        route = now(serving)
        assert (route.parameters.threshold, route.risk, route.author) == (0.4, "medium", "olga")
        assert RouteStore(serving.project.routes).signers(route, trust_of(serving.project)) == ["olga", "olga2", "omar"]
        told = as_of(serving.project, serving.database, E, SystemClock().now())
        assert (told.signed_by, told.risk, told.diff) == (("olga", "olga2", "omar"), "medium", route.diff)
        for early in (before, between):  # it was written before, and in force after
            assert as_of(serving.project, serving.database, E, early).revision == 1
        acts.verify(serving.project)
        entry = audit.entries(serving.database)[-1]
        assert (entry.actor, entry.action, entry.values[1]["risk"]) == ("omar", "sign", "medium")
        assert isinstance(obeyed(serving), Parameters)

    def test_a_service_counts_once_and_never_for_high(self, serving: Gate) -> None:
        file = proposed(serving)
        assert sign(serving.project, "svc", serving.people, file).missing == ""
        file = proposed(serving, 0.2, share=0.6)
        for name in ("svc", "svc2", "omar"):
            assert sign(serving.project, name, serving.people, file).missing
        assert sign(serving.project, "rhea", serving.people, file).missing == ""

    def test_when_the_route_has_moved_on_it_is_void(self, serving: Gate) -> None:
        file = proposed(serving)
        kept = file.with_name("kept.json")
        shutil.copy(file, kept)
        serving.rollout("omar").change_parameters(E, {"ACTIVATE": "false"})
        with pytest.raises(Conflict, match=r"since then .*ACTIVATE True → False"):
            sign(serving.project, "omar", serving.people, file)
        data = signing.add_signature(kept.read_bytes(), serving.people.load("omar"), "kept")
        store = RouteStore(serving.project.routes)
        store.path(E, 3).write_bytes(data)  # by somebody who may write all files
        (store.folder / E / "current").write_text("3\n")
        assert "says it is flight-delay revision 2" in str(obeyed(serving))

    def test_an_edited_one_is_refused(self, serving: Gate) -> None:
        file = proposed(serving)
        envelope = json.loads(file.read_bytes())
        file.write_bytes(json.dumps(envelope).encode())
        with pytest.raises(Tampered):
            sign(serving.project, "omar", serving.people, file)

    def test_on_the_command_line(
        self, serving: Gate, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("INTERLOCK_PROJECT", str(serving.project.root))
        monkeypatch.setenv("INTERLOCK_KEYS_DIR", str(serving.people.folder))

        def run(*words: str, code: int = 0) -> Any:
            assert cli.run([*words, "--json"]) == code
            return json.loads(capsys.readouterr().out)

        route = now(serving)
        found = diff_of(serving, route, replace(route, rules=(FIXED,)))
        rule = ("--when", FIXED.when, "--then", "answer", "--output", '{"score": 0.1, "label": false}')
        refused = run("rules", E, "add", "fixed", *rule, "--as", "olga", code=1)
        assert "--rule fixed.cel --then answer" in refused["error"]["next"]
        waits = run("rules", E, "add", "fixed", *rule, "--diff", found, "--as", "olga")
        assert (waits["risk"], waits["signed_by"], waits["diff"]) == ("medium", ["olga"], found)
        assert run("sign", waits["proposal"]) == waits
        assert run("sign", waits["proposal"], "--as", "omar")["proposal"] is None
        assert [one["name"] for one in run("rules", E)["items"]] == ["fixed"]
        assert run("sign", waits["proposal"], "--as", "omar", code=2)["error"]["code"] == "usage"
        root = set_policy(serving.project, serving.people, "ann", None, 2)  # the trust root's proposals too
        assert run("sign", str(root.proposal))["revision"] == root.trust.revision


def plant(**more: Any) -> Callable[[Gate], None]:
    """A revision that somebody writes who holds these keys, and uses none of our commands."""
    keys = more.pop("keys")

    def write(gate: Gate) -> None:
        route, clock = now(gate), SystemClock().now()
        more.setdefault("parameters", replace(route.parameters, threshold=0.9))
        if hours := more.pop("hours", None):
            more["override"] = Override(iso(clock + timedelta(hours=hours)), route.parameters, route.rules)
        store = RouteStore(gate.project.routes)
        values = {"revision": 2, "author": keys[0], "time": iso(clock), "previous": store.digest_of(E, 1), **more}
        store.write(replace(route, **values), *(gate.people.load(name) for name in keys))

    return write


ATTACKS = {
    "medium by one": (plant(keys=["olga"], risk="medium"), "has 1 of the 2 signatures"),
    "two keys of one owner": (plant(keys=["olga", "olga2"], risk="medium"), "has 1 of the 2 signatures"),
    "two services": (plant(keys=["svc", "svc2"], risk="medium"), "has 1 of the 2 signatures"),
    "high with a service": (plant(keys=["olga", "omar", "svc"], risk="high"), "has 2 of the 3 signatures"),
    "override by operators": (plant(keys=["olga", "omar"], hours=1), "another person with the role admin"),
    "override by one who is both": (plant(keys=["both"], hours=1), "another person with the role admin"),
    "override by a service": (plant(keys=["svc", "adam"], hours=1), "takes an operator"),
    "override that is too long": (plant(keys=["olga", "adam"], hours=25), "the policy allows 24 hours"),
}


@pytest.mark.parametrize(("attack", "why"), ATTACKS.values(), ids=ATTACKS)
def test_a_revision_with_too_few_signatures_is_obeyed_by_nobody(
    serving: Gate, attack: Callable[[Gate], None], why: str
) -> None:
    approvals = serving.project.approvals / now(serving).arms[0].package_digest.removeprefix("sha256:")
    package = serving.versions.packages.find(now(serving).arms[0].package_digest)
    attack(serving)
    assert why in str(obeyed(serving))
    shutil.rmtree(approvals)
    end = Approved(expires=SystemClock().now() + timedelta(hours=1))
    decide(serving.project, serving.database, "rob", serving.people, f"{E}:1", "approve", "fine", terms=end)
    later = FixedClock(SystemClock().now() + timedelta(hours=2))
    with pytest.raises(NotApproved, match=why):  # a model server that goes on as the route says
        admit(package, approvals, trust_of(serving.project), "serve", later, serving.project.routes)
    outcome = serving.rollout("omar").change_parameters(E, {"RETRY": "2"})  # and the next step does not launder it
    assert outcome.route.parameters == Parameters(retry=2)
    assert obeyed(serving) == Parameters(retry=2)


def test_an_admin_is_no_second_operator(serving: Gate) -> None:
    plant(keys=["olga", "adam"], risk="medium")(serving)
    assert "adam, who has not the role operator" in str(obeyed(serving))


class TestOverride:
    def signed(self, gate: Gate, to: float = 0.9, by: str = "adam") -> RouteDocument:
        outcome = threshold(gate, to, override="a wave of fraud")
        assert outcome.proposal is not None
        assert "adam" in outcome.proposal.may_sign
        assert sign(gate.project, by, gate.people, Path(outcome.proposal.file)).missing == ""
        return now(gate)

    def test_it_takes_an_admin_and_ends_by_itself_at_every_gateway(self, serving: Gate) -> None:
        route = self.signed(serving)
        assert (route.reason, route.parameters.threshold, route.risk) == ("a wave of fraud", 0.9, None)
        start = SystemClock().now()

        async def look() -> list[float]:
            clock = FixedClock(start)
            made, said = gateway(serving, clock), []
            for hours in (0, 23, 2):
                clock.at += timedelta(hours=hours)
                made.refresh()
                said.append(made.by_name[E].parameters.threshold)
            clock.at = start
            made = gateway(serving, clock)
            made.refresh()
            serving.project.trust.rename(serving.project.root / "away")  # nothing new can be verified from here on
            clock.at += timedelta(hours=25)
            made.refresh()
            said.append(made.by_name[E].parameters.threshold)
            close(made)
            return said

        assert asyncio.run(look()) == [0.9, 0.9, 0.5, 0.5]

    def test_it_is_told_until_a_revision_without_one_follows(self, serving: Gate) -> None:
        route = self.signed(serving)
        assert route.override is not None
        start = SystemClock().now()

        def told(hours: float) -> list[str]:
            watch_overrides(serving.project, serving.database, E, start + timedelta(hours=hours))
            return [row.sentence for row in alerts.listed(serving.database, E) if row.state == "FIRING"]

        first = told(0)
        assert len(first) == 1
        assert "needs a review" in first[0]
        assert told(30) == first  # over, and still nobody has looked
        serving.rollout("omar").change_parameters(E, {"THRESHOLD": "0.5"}, "looked at it: not needed")
        assert told(31) == []
        assert watch_overrides(serving.project, serving.database, E, start + timedelta(hours=32)) == []
        acts.verify(serving.project)

    def test_no_later_step_makes_it_last(self, serving: Gate) -> None:
        route = self.signed(serving)
        after = serving.rollout("omar").deploy(f"{E}:2", E, "challenger", buckets=100).route
        assert (after.parameters.threshold, after.override) == (0.5, None)
        assert threshold(serving, 0.9, override="again").proposal is not None
        assert route.override is not None

    def test_a_second_one_goes_on_from_the_first_but_not_longer(self, serving: Gate) -> None:
        first = self.signed(serving)
        outcome = serving.rollout().add_rule(E, FAR, "", Terms(override="worse than we thought"))
        assert first.override is not None
        assert outcome.route.override == first.override
        assert (outcome.route.parameters.threshold, outcome.route.rules) == (0.9, (FAR,))
        later = serving.rollout()
        later._clock = FixedClock(SystemClock().now() + timedelta(hours=25))
        with pytest.raises(Refused, match="nobody has reviewed it"):
            later.change_parameters(E, {"THRESHOLD": "0.8"}, "", Terms(override="once more"))
        at = as_of(serving.project, serving.database, E, SystemClock().now() + timedelta(hours=25))
        assert (at.revision, at.parameters.threshold) == (2, 0.5)

    def test_the_policy_must_allow_it(self, serving: Gate) -> None:
        set_policy(serving.project, serving.people, "ann", Policy({"medium": Quorum(operators=2)}), None)
        with pytest.raises(Refused, match="allows no override"):
            threshold(serving, 0.9, override="now!")


def test_a_policy_says_operators_by_class_and_reads_as_before_without() -> None:
    assert [TWO.operators_of(risk) for risk in ("low", "medium", "high")] == [1, 2, 3]
    inherited = Policy({"medium": Quorum(operators=2), "high": Quorum(reviewers=2)})
    assert inherited.operators_of("high") == 2
    assert msgspec.to_builtins(Quorum(2)) == {"reviewers": 2, "one_of": ()}
    with pytest.raises(ValueError, match="never waits"):
        msgspec.convert({"quorum": {"low": {"operators": 2}}}, Policy)
    never = Policy({"high": Quorum(operators=2)}, {"quiet": Limits(medium=1.0, high=1.0)})
    assert (never.judges_changes("quiet"), never.judges_changes("loud")) == (False, True)
