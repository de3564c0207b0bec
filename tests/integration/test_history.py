"""The record of a real gate: what is told of a moment, what signatures say against the trail, what nobody names any more."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, update
from tests.gate import Gate

from interlock.core.clock import FixedClock, SystemClock
from interlock.core.errors import Conflict, InterlockError, NotApproved, NotFound, Tampered
from interlock.core.files import write_atomic
from interlock.core.hashing import canonical
from interlock.core.ids import uuid7_text
from interlock.predlog.record import Prediction
from interlock.predlog.rows import prediction_tables
from interlock.registry import evaluations
from interlock.registry.approvals import read_decisions, require_quorum
from interlock.registry.routes import RouteStore
from interlock.release import acts, audit
from interlock.release.asof import State, as_of
from interlock.release.garbage import collect
from interlock.release.rules import make_rule
from interlock.release.users import add_user, revoke_key, rotate_key
from interlock.store.tables import audit as table
from interlock.warehouse.ducklake import open_warehouse

E = "flight-delay"
MONTH = timedelta(days=30)


@pytest.fixture
def lived(gate: Gate) -> Gate:
    """Two versions were approved, one serves; a key was trusted and lost again."""
    for seed in (1, 2):
        gate.say(gate.version(seed))
    gate.rollout().deploy(f"{E}:1", E, "champion", reason="first")
    gate.rollout().change_parameters(E, {"THRESHOLD": "0.4"}, "fewer alarms")
    public = gate.people.generate("rita").public_key()
    add_user(gate.project, gate.people, "ann", "rita", ("reviewer",), public)
    revoke_key(gate.project, gate.people, "ann", "rita", reason="laptop lost")
    return gate


def cut(gate: Gate, first: int) -> None:
    """What somebody does who may write to the database and to the files, and has no key: the end goes, and nobody sees it."""
    with gate.database.write() as connection:
        connection.execute(delete(table).where(table.c.seq >= first))
    entries = audit.entries(gate.database)
    end = {"hash": entries[-1].hash, "seq": entries[-1].seq} if entries else {"hash": "", "seq": 0}
    write_atomic(gate.database.path.with_name("audit.head"), canonical(end))


def rewrite(gate: Gate, seq: int, **values: Any) -> None:
    """An entry changed, and every hash from there on made anew."""
    with gate.database.write() as connection:
        connection.execute(update(table).where(table.c.seq == seq).values(values))
    previous = ""
    for entry in audit.entries(gate.database):
        names = {name: getattr(entry, name) for name in entry.__struct_fields__} | {"previous": previous}
        previous = audit.Entry(**names).computed
        with gate.database.write() as connection:
            connection.execute(
                update(table).where(table.c.seq == entry.seq).values(previous=names["previous"], hash=previous)
            )
    write_atomic(gate.database.path.with_name("audit.head"), canonical({"hash": previous, "seq": entry.seq}))


def test_what_was_signed_and_what_is_told_agree(lived: Gate) -> None:
    assert acts.verify(lived.project) == 6
    assert all(entry.origin and "/" in entry.origin for entry in audit.entries(lived.database))


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (6, "a revision of trust.json is signed, and the trail has no entry of it"),
        (4, f"{E} revision 2 is signed, and the trail has no entry of it"),
        (1, "the word of rob on package sha256:"),
    ],
)
def test_an_end_that_was_cut_off_is_told_by_the_signed_acts(lived: Gate, first: int, said: str) -> None:
    cut(lived, first)
    assert audit.verify(lived.database) == first - 1  # the chain alone sees nothing
    with pytest.raises(Tampered) as told:
        acts.verify(lived.project)
    assert said in told.value.message


@pytest.mark.parametrize(
    "values", [{"actor": "rob"}, {"reason": "because"}, {"after": canonical({"arms": {}, "revision": 2}).decode()}]
)
def test_an_entry_that_was_made_anew_contradicts_what_was_signed(lived: Gate, values: dict[str, Any]) -> None:
    rewrite(lived, 4, **values)
    assert audit.verify(lived.database) == 6
    with pytest.raises(Tampered, match=f"audit entry 4 tells of {E} revision 2 otherwise than olga signed it"):
        acts.verify(lived.project)


def test_signed_files_that_went_are_told_by_the_trail(lived: Gate) -> None:
    for path in lived.project.approvals.glob("*/*"):
        path.unlink()
    RouteStore(lived.project.routes).path(E, 1).unlink()
    with pytest.raises(Tampered) as told:
        acts.verify(lived.project)
    assert told.value.message.count("which is not there") == 3


def test_an_act_whose_process_was_killed_is_mended_once(lived: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(audit, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            lived.rollout().change_parameters(E, {"RETRY": "0"})
    assert acts.differences(lived.project, lived.database) == [
        f"{E} revision 3 is signed, and the trail has no entry of it"
    ]
    assert acts.mend(lived.project, "olga", "out of memory") == [f"{E} revision 3"]
    assert acts.mend(lived.project, "olga", "again") == []
    lived.rollout().change_parameters(E, {"RETRY": "1"})
    assert acts.verify(lived.project) == 8


def test_an_export_is_verified_with_nothing_but_itself(lived: Gate, tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    end = audit.export(lived.database, file)
    assert (end, audit.verify_export(file).seq) == (audit.verify_export(file), 6)
    with pytest.raises(Conflict):
        audit.export(lived.database, file)
    lines = file.read_bytes().splitlines(keepends=True)
    harms: dict[str, list[bytes]] = {
        "entry 2 .* was edited": [line.replace(b"rob", b"bob") if i == 1 else line for i, line in enumerate(lines)],
        "entry 3 was removed": [*lines[:2], *lines[3:]],
        "line 4 .* canonical": [*lines[:3], lines[3].replace(b'":', b'": ', 1), *lines[4:]],
        "line 7": [*lines, b"{}\n"],
    }
    for said, harmed in harms.items():
        file.write_bytes(b"".join(harmed))
        with pytest.raises(Tampered, match=said):
            audit.verify_export(file)


def step(do: Callable[[], Any]) -> None:
    with suppress(InterlockError):  # refused: nothing has changed, and that is what is remembered
        do()


def approved(gate: Gate, package: str) -> bool:
    """Whether it may be served now."""
    trust = gate.rollout().trust
    try:
        require_quorum(
            read_decisions(gate.project.approvals, package, trust), package, "ann", "serve", trust, SystemClock().now()
        )
    except NotApproved:
        return False
    return True


def seen(gate: Gate) -> dict[str, Any]:
    """What is true now, as the code that serves reads it."""
    store = RouteStore(gate.project.routes)
    if not store.current(E):
        return {}
    route = store.read(E, gate.rollout().trust, past=True)
    served = [*route.arms, *((route.standby,) if route.standby else ()), *route.shadows]
    valid = [key.name for key in gate.rollout().trust.keys if key.valid_at(SystemClock().now())]
    serves = [approved(gate, one.package_digest) for one in (*route.arms, *((route.standby,) if route.standby else ()))]
    return {
        "revision": route.revision, "versions": [one.version for one in served], "parameters": route.parameters,
        "rules": route.rules, "experiment": route.experiment, "keys": sorted(valid), "approved": serves,
    }  # fmt: skip


def told(state: State) -> dict[str, Any]:
    return {
        "revision": state.revision, "versions": [int(one.version.partition(":")[2]) for one in state.served],
        "parameters": state.parameters, "rules": state.rules, "experiment": state.experiment,
        "keys": [key.name for key in state.keys],
        "approved": [one.approved for one in state.served if not one.arm.startswith("shadow")],
    }  # fmt: skip


def actions(gate: Gate, name: str, seed: int, rule: str) -> dict[str, Callable[[], Any]]:
    """What people may do; much of it is refused."""
    out, reviewer = gate.rollout(), ("rob", "rhea")[seed % 2]
    new = make_rule(name=rule, when="input.distance > 2000.0", then="refuse", reason="far")
    return {
        "approve": lambda: gate.say(name, reviewer),
        "reject": lambda: gate.say(name, reviewer, "reject"),
        "request changes": lambda: gate.say(name, reviewer, "request_changes"),
        "deploy": lambda: out.deploy(name, E, "champion"),
        "challenge": lambda: out.deploy(name, E, "challenger", buckets=1000),
        "shadow": lambda: out.deploy(name, E, "shadow"),
        "promote": lambda: out.promote(E),
        "rollback": lambda: out.roll_back(E),
        "params": lambda: out.change_parameters(E, {"THRESHOLD": f"0.{seed}"}),
        "rule": lambda: out.add_rule(E, new),
        "revoke": lambda: revoke_key(gate.project, gate.people, "ann", reviewer),
        "rotate": lambda: rotate_key(gate.project, gate.people, "ann", reviewer),
        "trust": lambda: add_user(gate.project, gate.people, "ann", reviewer, ("author", "reviewer")),
    }


ACTIONS = st.sampled_from(
    [
        "approve",
        "reject",
        "request changes",
        "deploy",
        "challenge",
        "shadow",
        "promote",
        "rollback",
        "params",
        "rule",
        "revoke",
        "rotate",
        "trust",
    ]
)


@settings(max_examples=6, phases=(Phase.explicit, Phase.generate))
@given(plan=st.lists(st.tuples(ACTIONS, st.integers(1, 3)), min_size=4, max_size=12))
def test_every_moment_is_told_as_it_was(template: Path, tmp_path_factory: Any, plan: list[tuple[str, int]]) -> None:
    gate = Gate(template, tmp_path_factory.mktemp("random"))
    names = [gate.version(seed) for seed in (1, 2, 3)]
    moments: list[tuple[datetime, dict[str, Any]]] = []
    first: list[tuple[str, int]] = [("approve", 1), ("approve", 2), ("deploy", 1)]
    for number, (action, seed) in enumerate([*first, *plan]):
        step(actions(gate, names[seed - 1], seed, f"r{number}")[action])
        moments.append((SystemClock().now(), seen(gate)))
    for at, true in moments:
        if true:
            assert told(as_of(gate.project, gate.database, E, at)) == true
        else:
            with pytest.raises(NotFound):
                as_of(gate.project, gate.database, E, at)
    assert acts.differences(gate.project, gate.database) == []
    check_garbage(gate, names)
    gate.database.close()


def check_garbage(gate: Gate, names: list[str]) -> None:
    """Half a year later nothing is gone that anything names, and the way back is open."""
    store, trust = RouteStore(gate.project.routes), gate.rollout().trust
    routes = [store.read(E, trust, number, past=True) for number in range(1, store.current(E) + 1)]
    arms = {one.package_digest for route in routes for one in route.arms}
    named = arms | {one.package_digest for route in routes for one in route.shadows}
    signed = {entry.subject for entry in audit.entries(gate.database, action="approve")} | {
        names[-1]
    }  # and the newest version
    kept = named | {gate.versions.named(name).package_digest for name in signed}
    later = FixedClock(SystemClock().now() + 6 * MONTH)
    everything = {f"sha256:{path.name}" for path in gate.project.packages.iterdir()}
    found = collect(gate.project, "olga", MONTH, remove=True, clock=later)
    assert set(found.packages) == everything - kept
    assert {f"sha256:{path.name}" for path in gate.project.packages.iterdir()} == kept & everything
    if routes[-1].standby and approved(gate, routes[-1].standby.package_digest):
        champion = routes[-1].arms[0].package_digest
        if approved(gate, champion):
            gate.rollout().roll_back(E)


def logged(gate: Gate, package: str) -> None:
    """A row of the prediction log that a package answered."""
    one = Prediction(
        prediction_id=uuid7_text(), request_id="", endpoint=E, received_at=0, event_time=0, unit_id="", unit_source="request",
        experiment="", phase=1, arm="champion", propensity=1.0, model=E, version=1, package_digest=package, route_revision=1,
        outcome="answered", reason="", latency_us=1, model_us=1, seq=1, rows=1, inputs=[], outputs=[],
    )  # fmt: skip
    warehouse = open_warehouse(gate.project.warehouse, create=True)
    warehouse.append(prediction_tables([(uuid7_text(), one)], {}), {})
    warehouse.close()


@pytest.mark.parametrize("harm", ["young", "logged", "compared", "approved", "newest", "nothing"])
def test_only_what_nothing_names_goes(gate: Gate, harm: str) -> None:
    names = [gate.version(seed) for seed in ((2, 1) if harm == "newest" else (1, 2))]
    package = gate.versions.named(f"{E}:{2 if harm == 'newest' else 1}").package_digest
    if harm == "approved":
        gate.say(f"{E}:1")
    else:
        gate.say(gate.versions.of_package(package).name, decision="reject")  # type: ignore[union-attr] # it is registered
    if harm == "logged":
        logged(gate, package)
    if harm == "compared":
        with gate.database.write() as connection:
            other = gate.versions.named(names[1]).package_digest
            evaluations.store(connection, b"{}", other, package, "now")
    later = FixedClock(SystemClock().now() + (timedelta(days=1) if harm == "young" else 2 * MONTH))
    planned = collect(gate.project, "olga", MONTH, remove=False, clock=later)
    assert (package in planned.packages) is (harm == "nothing")
    assert all(gate.versions.packages.path(one).exists() for one in planned.packages)
    assert collect(gate.project, "olga", MONTH, remove=True, clock=later) == planned
    assert gate.versions.packages.path(package).exists() is (harm != "nothing")
    told = audit.entries(gate.database, action="gc")
    assert [json.loads(str(entry.before))["packages"] for entry in told] == (
        [list(planned.packages)] if planned.packages else []
    )


def test_nothing_goes_while_a_signed_file_is_damaged(gate: Gate) -> None:
    gate.version(1), gate.version(2)
    gate.say(f"{E}:1", decision="reject")
    (file,) = gate.project.approvals.glob("*/*")
    file.write_bytes(file.read_bytes().replace(b"payloadType", b"payloadTipe"))
    with pytest.raises(Tampered):
        collect(gate.project, "olga", MONTH, remove=True, clock=FixedClock(SystemClock().now() + 2 * MONTH))
