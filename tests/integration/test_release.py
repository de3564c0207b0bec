"""From a version to traffic: who may say what, and what every word does. Real packages, keys, files and database."""

from __future__ import annotations

import threading

import msgspec
import pytest
from tests.gate import Gate, refusals

from interlock.core.assignment import owner_table, share
from interlock.core.errors import (
    Conflict,
    InterlockError,
    NotApproved,
    NotFound,
    Refused,
    Tampered,
    Unavailable,
    Usage,
)
from interlock.model.signature import Input, Signature
from interlock.registry.routes import RouteDocument
from interlock.release import audit
from interlock.release.compatible import check_history
from interlock.release.obeyed import wait_until_obeyed
from interlock.release.rollout import Untold
from interlock.release.users import trust_of

E = "flight-delay"


@pytest.fixture
def serving(gate: Gate) -> Gate:
    """Version 1 is champion, version 2 is approved."""
    for seed in (1, 2):
        gate.say(gate.version(seed))
    gate.rollout().deploy(f"{E}:1", E, "champion")
    return gate


def shares(route: RouteDocument) -> dict[str, int]:
    return {arm.name: share(arm.ranges) for arm in route.arms}


class TestRollout:
    def test_the_first_champion_gets_everything(self, gate: Gate) -> None:
        gate.say(gate.version(1))
        gate.project.config.write_text(
            gate.project.config.read_text()
            + '[endpoint]\nunit = "tailnum"\nthreshold = 0.3\ntimeout_second = 1\nretry = 2\nallow_version_pin = true\n'
            "allow_narrower = true\nfallback = {score = 0.1, label = false}\n"
        )
        route = gate.rollout().deploy(f"{E}:1", E, "champion", replicas=2, reason="go").route
        again = gate.rollout().routes.read(E, trust_of(gate.project))
        assert route == again
        assert (shares(route), route.experiment.phase, route.experiment.unit) == ({"champion": 10_000}, 1, "tailnum")
        digest12 = route.arms[0].package_digest[7:19]
        assert route.arms[0].replicas == (f"{digest12}-1", f"{digest12}-2")
        assert route.arms[0].label == gate.versions.named(f"{E}:1").label
        parameters = route.parameters
        assert (parameters.threshold, parameters.timeout_second, parameters.retry) == (0.3, 1.0, 2)
        assert parameters.fallback == {"score": 0.1, "label": False}
        assert (route.allow_version_pin, route.allow_narrower) == (True, True)
        assert (route.author, route.reason, route.previous) == ("olga", "go", None)

    def test_unapproved_unknown_and_foreign_are_refused(self, gate: Gate) -> None:
        name = gate.version(1)
        cases: list[tuple[str, str, str, type[InterlockError]]] = [
            ("olga", name, E, NotApproved),
            ("rob", name, E, Refused),
            ("nobody", name, E, Refused),
            ("olga", f"{E}:9", E, NotFound),
            ("olga", name, "../x", Usage),
            ("olga", name, "Big", Usage),
        ]
        for by, version, endpoint, error in cases:
            with pytest.raises(error):
                gate.rollout(by).deploy(version, endpoint, "champion")
        assert not gate.project.routes.exists()
        assert [actor for actor, _, _ in refusals(gate)] == ["olga", "rob", "nobody"]

    def test_a_package_that_was_altered_is_not_deployed(self, gate: Gate) -> None:
        gate.say(gate.version(1))
        golden = gate.file(f"{E}:1", "golden.json")
        golden.write_bytes(golden.read_bytes() + b" ")
        with pytest.raises(Tampered):
            gate.rollout().deploy(f"{E}:1", E, "champion")
        assert len(refusals(gate)) == 1

    def test_a_challenger_takes_from_the_champion_and_few_units_move(self, serving: Gate) -> None:
        first = serving.rollout().deploy(f"{E}:2", E, "challenger", buckets=2000).route
        assert (shares(first), first.experiment.phase) == ({"champion": 8000, "challenger": 2000}, 2)
        second = serving.rollout().traffic(E, {"champion": 5000, "challenger": 5000}).route
        assert (second.experiment.phase, second.experiment.salt) == (3, first.experiment.salt)
        old, new = (owner_table({arm.name: arm.ranges for arm in route.arms}) for route in (first, second))
        assert sum(a != b for a, b in zip(old, new, strict=True)) == 3000

    def test_what_is_so_already_makes_no_revision(self, serving: Gate) -> None:
        rollout = serving.rollout()
        rollout.deploy(f"{E}:2", E, "challenger", buckets=2000)
        for outcome in (
            rollout.traffic(E, {"champion": 8000, "challenger": 2000}),
            rollout.deploy(f"{E}:2", E, "challenger", buckets=2000),
            rollout.deploy(f"{E}:1", E, "champion"),
            rollout.change_parameters(E, {"THRESHOLD": "0.5"}),
        ):
            assert (outcome.changed, outcome.route.revision) == (False, 2)
        assert rollout.routes.current(E) == 2

    def test_more_replicas_start_no_phase(self, serving: Gate) -> None:
        route = serving.rollout().deploy(f"{E}:1", E, "champion", replicas=3).route
        assert (len(route.arms[0].replicas), route.revision, route.experiment.phase, route.standby) == (3, 2, 1, None)

    def test_promote_then_roll_back(self, serving: Gate) -> None:
        rollout = serving.rollout()
        rollout.deploy(f"{E}:2", E, "challenger", buckets=2000)
        promoted = rollout.promote(E).route
        assert [(arm.name, arm.version) for arm in promoted.arms] == [("champion", 2)]
        assert promoted.standby is not None
        assert (promoted.standby.version, shares(promoted)) == (1, {"champion": 10_000})
        assert set(promoted.replicas()) == {*promoted.arms[0].replicas, *promoted.standby.replicas}
        back = rollout.roll_back(E, reason="worse").route
        assert back.standby is not None
        assert (back.arms[0].version, back.standby.version, back.reason) == (1, 2, "worse")
        assert rollout.roll_back(E).route.arms[0].version == 2
        assert audit.verify(serving.database) == 7

    def test_the_champion_before_stays_on_as_a_shadow(self, serving: Gate) -> None:
        serving.say(serving.version(3))
        rollout = serving.rollout()
        with pytest.raises(Conflict, match="no champion before"):
            rollout.deploy(f"{E}:1", E, "champion", keep_shadow=True)
        rollout.deploy(f"{E}:1", E, "champion", replicas=2)
        rollout.deploy(f"{E}:2", E, "shadow")
        kept = rollout.deploy(f"{E}:2", E, "champion", keep_shadow=True).route
        (shadow,) = kept.shadows  # version 2 is no shadow of itself
        assert (shadow.name, shadow.version, len(shadow.replicas)) == ("shadow", 1, 2)
        assert not set(shadow.replicas) & set(kept.replicas())
        assert not rollout.deploy(f"{E}:2", E, "champion", keep_shadow=True).changed
        rollout.deploy(f"{E}:3", E, "challenger", buckets=100)
        promoted = rollout.promote(E, keep_shadow=True).route
        assert {one.name: one.version for one in promoted.shadows} == {"shadow": 1, "shadow-2": 2}
        back = rollout.roll_back(E).route
        assert {one.name: one.version for one in back.shadows} == {"shadow": 1}
        assert rollout.retire(E, "shadow").route.shadows == ()

    def test_a_champion_that_was_rejected_stays_on_as_nothing(self, serving: Gate) -> None:
        serving.say(f"{E}:1", decision="reject")
        with pytest.raises(NotApproved, match="rejected"):
            serving.rollout().deploy(f"{E}:2", E, "champion", keep_shadow=True)

    def test_a_new_champion_replaces_the_old_one_and_keeps_the_challenger(self, serving: Gate) -> None:
        serving.say(serving.version(3))
        rollout = serving.rollout()
        rollout.deploy(f"{E}:2", E, "challenger", buckets=1000)
        route = rollout.deploy(f"{E}:3", E, "champion").route
        assert {arm.name: arm.version for arm in route.arms} == {"champion": 3, "challenger": 2}
        assert shares(route) == {"champion": 9000, "challenger": 1000}
        assert route.standby is not None
        assert route.standby.version == 1
        with pytest.raises(Conflict, match="is the arm challenger"):
            rollout.deploy(f"{E}:2", E, "champion")
        with pytest.raises(Conflict, match="challenger of flight-delay is flight-delay:2"):
            rollout.deploy(f"{E}:1", E, "challenger", buckets=100)

    def test_retire_gives_the_units_back(self, serving: Gate) -> None:
        rollout = serving.rollout()
        before = owner_table({arm.name: arm.ranges for arm in rollout.routes.read(E, rollout.trust).arms})
        rollout.deploy(f"{E}:2", E, "challenger", buckets=2000)
        route = rollout.retire(E).route
        assert owner_table({arm.name: arm.ranges for arm in route.arms}) == before
        with pytest.raises(Conflict, match="cannot be without a champion"):
            rollout.retire(E, "champion")
        with pytest.raises(Usage, match="has no challenger"):
            rollout.retire(E)
        with pytest.raises(NotFound, match="has no arm challenger"):
            rollout.retire(E, "challenger")

    def test_steps_that_cannot_be_taken(self, serving: Gate) -> None:
        rollout = serving.rollout()
        with pytest.raises(Conflict, match="no champion to go back to"):
            rollout.roll_back(E)
        with pytest.raises(Conflict, match="has no champion yet"):
            rollout.deploy(f"{E}:1", "elsewhere", "challenger", buckets=1000)
        with pytest.raises(Usage, match="must name every arm"):
            rollout.traffic(E, {"champion": 9000})
        with pytest.raises(Usage, match="is no arm"):
            rollout.deploy(f"{E}:2", E, "winner")
        with pytest.raises(NotFound, match="no route elsewhere"):
            rollout.promote("elsewhere")
        rollout.deploy(f"{E}:2", E, "challenger", buckets=6000)
        serving.say(serving.version(3))
        with pytest.raises(Conflict, match="has only 40% to give"):
            rollout.deploy(f"{E}:3", E, "challenger-2", buckets=5000)

    def test_no_way_back_to_a_version_that_was_rejected(self, serving: Gate) -> None:
        rollout = serving.rollout()
        rollout.deploy(f"{E}:2", E, "champion")
        serving.say(f"{E}:1", decision="reject")
        with pytest.raises(NotApproved, match=r"flight-delay:1: .* was rejected"):
            rollout.roll_back(E)

    def test_a_rejected_champion_does_not_stand_by(self, serving: Gate) -> None:
        rollout = serving.rollout()
        rollout.deploy(f"{E}:2", E, "champion")
        serving.say(f"{E}:2", decision="reject")
        back = rollout.roll_back(E).route
        assert (back.arms[0].version, back.standby) == (1, None)

    def test_an_altered_route_stops_every_step(self, serving: Gate) -> None:
        path = serving.rollout().routes.path(E, 1)
        data = bytearray(path.read_bytes())
        data[100] ^= 1
        path.write_bytes(bytes(data))
        with pytest.raises(Tampered):
            serving.rollout().deploy(f"{E}:2", E, "challenger", buckets=100)

    def test_of_two_at_the_same_time_one_wins(self, serving: Gate) -> None:
        rollouts, barrier, ends = [serving.rollout() for _ in range(4)], threading.Barrier(4), list[str]()

        def race(number: int) -> None:
            barrier.wait()
            try:
                rollouts[number].change_parameters(E, {"THRESHOLD": f"0.{number + 1}"})
                ends.append("done")
            except Conflict:
                ends.append("conflict")

        threads = [threading.Thread(target=race, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ends.count("done") == rollouts[0].routes.current(E) - 1
        assert len(ends) == 4


class TestParameters:
    def test_a_change_is_live_recorded_and_no_phase(self, serving: Gate) -> None:
        outcome = serving.rollout().change_parameters(E, {"THRESHOLD": "0.4", "ACTIVATE": "false"}, "tired of it")
        assert (outcome.route.parameters.threshold, outcome.route.parameters.activate) == (0.4, False)
        assert outcome.route.experiment == outcome.before.experiment
        entry = audit.entries(serving.database, last=1)[0]
        assert (entry.action, entry.subject, entry.reason) == ("params", E, "tired of it")
        assert '"THRESHOLD":0.5' in (entry.before or "")
        assert '"THRESHOLD":0.4' in (entry.after or "")

    @pytest.mark.parametrize(
        "change",
        [
            {"THRESHOLD": "high"},
            {"THRESHOLD": "7"},
            {"THRESHOLD": "-0.1"},
            {"TIMEOUT_SECOND": "0"},
            {"RETRY": "1.5"},
            {"ACTIVATE": "perhaps"},
            {"COLOUR": "1"},
            {"threshold": "0.4"},
            {"ACTIVE_MODEL": "challenger"},
            {"LOG_INPUTS": "none"},
            {"FALLBACK": "sorry"},
            {"FALLBACK": '{"score": 0.5}'},
            {"FALLBACK": '{"score": "high", "label": true}'},
            {"FALLBACK": '{"score": 0.5, "label": 1}'},
            {"FALLBACK": '{"score": true, "label": true}'},
            {"FALLBACK": '{"score": 0.5, "label": true, "more": 1}'},
        ],
    )
    def test_values_that_do_not_fit(self, serving: Gate, change: dict[str, str]) -> None:
        with pytest.raises(Usage):
            serving.rollout().change_parameters(E, change)
        assert serving.rollout().routes.current(E) == 1

    @pytest.mark.parametrize(
        "change",
        [
            {"FALLBACK": '{"score": 1, "label": false}'},
            {"FALLBACK": "error"},
            {"ACTIVE_MODEL": "1"},
            {"ACTIVE_MODEL": "champion"},
        ],
    )
    def test_values_that_fit(self, serving: Gate, change: dict[str, str]) -> None:
        name, text = next(iter(change.items()))
        values = msgspec.to_builtins(serving.rollout().change_parameters(E, change).route.parameters)
        assert values[name] == (msgspec.json.decode(text) if text.startswith("{") else text)

    def test_a_pinned_parameter_is_refused_by_name(self, serving: Gate) -> None:
        serving.obeyed(1, ["champion"], {"THRESHOLD": "INTERLOCK_PARAM__THRESHOLD"})
        with pytest.raises(
            Refused, match=r"THRESHOLD is pinned by environment of gateway 0 \(INTERLOCK_PARAM__THRESHOLD\)"
        ):
            serving.rollout().change_parameters(E, {"THRESHOLD": "0.4"})
        assert serving.rollout().change_parameters(E, {"RETRY": "0"}).changed
        assert len(refusals(serving)) == 1

    def test_an_arm_that_gets_everything_cannot_be_taken_out(self, serving: Gate) -> None:
        rollout = serving.rollout()
        rollout.deploy(f"{E}:2", E, "challenger", buckets=1000)
        rollout.change_parameters(E, {"ACTIVE_MODEL": "challenger"})
        with pytest.raises(Conflict, match="ACTIVE_MODEL sends all traffic to challenger"):
            rollout.retire(E)

    def test_the_kill_switch_works_without_the_database(self, serving: Gate) -> None:
        serving.database.close()
        for path in serving.project.state.glob("control.db*"):
            path.unlink()
        rollout = serving.rollout()
        with pytest.raises(Untold, match="is signed and in force"):
            rollout.change_parameters(E, {"ACTIVATE": "false"})
        assert rollout.routes.read(E, rollout.trust).parameters.activate is False


class TestExperiment:
    def test_a_start_shuffles_once_and_an_end_shuffles_nobody(self, serving: Gate) -> None:
        rollout = serving.rollout()
        before = rollout.deploy(f"{E}:2", E, "challenger", buckets=5000).route.experiment
        started = rollout.set_experiment(E, "exp-1").route.experiment
        assert (started.id, started.phase) == ("exp-1", 1)
        assert started.salt != before.salt
        ended = rollout.set_experiment(E, "").route.experiment
        assert (ended.id, ended.phase, ended.salt) == ("", 2, started.salt)


class TestWaiting:
    def test_without_gateways_there_is_nothing_to_wait_for(self, serving: Gate) -> None:
        route = serving.rollout().routes.read(E, trust_of(serving.project))
        assert wait_until_obeyed(serving.project, route, "champion") == []

    def test_it_ends_when_every_gateway_obeys(self, serving: Gate) -> None:
        route = serving.rollout().change_parameters(E, {"RETRY": "0"}).route
        serving.obeyed(1, ["champion"], slot=0)
        serving.obeyed(2, ["champion"], slot=1)
        late = threading.Timer(0.2, serving.obeyed, (2, ["champion"]))
        late.start()
        assert [status.slot for status in wait_until_obeyed(serving.project, route, "champion")] == [0, 1]
        late.join()

    def test_it_says_who_does_not_obey_and_why(self, serving: Gate) -> None:
        route = serving.rollout().change_parameters(E, {"RETRY": "0"}).route
        serving.obeyed(1, ["champion"])
        with pytest.raises(Unavailable, match="revision 2 is signed, but gateway 0 is at revision 1"):
            wait_until_obeyed(serving.project, route, timeout=0.1)
        serving.obeyed(2, [])
        log = serving.project.logs / f"model-server-{route.arms[0].replicas[0]}.log"
        log.parent.mkdir()
        log.write_text('starting\n{"code":"tampered","message":"features.py was altered","next":""}\n')
        with pytest.raises(Unavailable, match=r"no replica of champion answers at gateway 0: features\.py was altered"):
            wait_until_obeyed(serving.project, route, "champion", timeout=0.1)


def signature(*inputs: Input, classes: tuple[bool | int | str, ...] = (False, True)) -> Signature:
    return Signature("binary", inputs, classes)


@pytest.mark.parametrize(
    ("new", "what"),
    [
        (signature(Input("a", "int")), "input a of this version is a int, but e has logged a float"),
        (signature(Input("A", "float")), "input A of this version is A float, but e has logged a float"),
        (signature(Input("a", "float"), classes=(0, 1)), "the label of this version is binary INT64"),
        (Signature("regression", (Input("a", "float"),)), "the label of this version is regression FP64"),
    ],
)
def test_an_endpoint_keeps_the_types_it_has_logged(new: Signature, what: str) -> None:
    served = [signature(Input("a", "float")), signature(Input("b", "string"))]
    with pytest.raises(Refused, match=what):
        check_history("e", served, new)


def test_inputs_may_come_and_go() -> None:
    served = [signature(Input("a", "float")), signature(Input("b", "string"))]
    check_history("e", served, signature(Input("c", "bool"), Input("b", "string", nullable=True), Input("a", "float")))
