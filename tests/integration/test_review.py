"""Who may say what about a version: the trust root and decisions. Real packages, keys, files and database."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.gate import Gate, refusals

from interlock.core import signing
from interlock.core.errors import (
    Conflict,
    FourEyes,
    NotApproved,
    NotFound,
    Refused,
    Tampered,
    Usage,
)
from interlock.core.project import Project
from interlock.core.trust import read_trust
from interlock.registry.approvals import read_decisions
from interlock.release import audit
from interlock.release.keys import Keys
from interlock.release.review import decide
from interlock.release.users import add_user, init_trust, trust_of
from interlock.store.database import Database

E = "flight-delay"


class TestTrust:
    def project(self, root: Path) -> Project:
        root.mkdir()
        (root / "interlock.toml").write_text(
            'model = "m"\nrecipe = "r:t"\n[inputs]\na = "float"\n'
            '[extract]\nsql = "s"\nid = "id"\nevent_time = "at"\nlabel = "y"\n'
        )
        return Project(root)

    @pytest.mark.parametrize(
        ("mode", "roles"), [("solo", ("author", "reviewer", "operator")), ("team", ("author", "operator"))]
    )
    def test_init_makes_root_first_person_and_first_entry(
        self, tmp_path: Path, mode: str, roles: tuple[str, ...]
    ) -> None:
        project, keys = self.project(tmp_path / "My Flights"), Keys(tmp_path / "keys")
        fingerprint = init_trust(project, mode, "ann", keys)  # type: ignore[arg-type] # a Mode, widened by parametrize
        trust = read_trust(project.trust, fingerprint)
        assert (trust.mode, trust.revision, [(key.name, key.roles) for key in trust.keys]) == (
            mode,
            1,
            [("ann", roles)],
        )
        assert project.root_fingerprint() == fingerprint
        assert {entry.name for entry in keys.entries() if entry.private} == {"ann", "root-my-flights"}
        assert not list(project.state.rglob("ann*"))
        with pytest.raises(Conflict, match="has a trust root already"):
            init_trust(project, "team", "ann", keys)
        database = Database(project.database)
        assert [(entry.action, entry.actor) for entry in audit.entries(database)] == [("init", "ann")]
        database.close()

    def test_a_second_project_of_that_name_has_a_root_of_its_own(self, tmp_path: Path) -> None:
        keys = Keys(tmp_path / "keys")
        (tmp_path / "other").mkdir()
        first = init_trust(self.project(tmp_path / "p"), "team", "ann", keys)
        second = init_trust(self.project(tmp_path / "other" / "p"), "team", "ann", keys)
        assert first != second
        assert {entry.name for entry in keys.entries()} == {"ann", "root-p", "root-p-2"}

    def test_adding_and_changing_a_person(self, gate: Gate) -> None:
        rita = gate.people.generate("rita")
        added = add_user(gate.project, gate.people, "ann", "rita", ("reviewer",)).key
        assert added is not None
        assert (added.keyid, added.owner) == (signing.key_id(rita.public_key()), "rita")
        changed = add_user(gate.project, gate.people, "ann", "rita", ("operator", "reviewer")).key
        trust = trust_of(gate.project)
        assert changed is not None
        assert (trust.revision, trust.key_named("rita")) == (3, changed)
        assert (changed.roles, changed.valid_from) == (("operator", "reviewer"), added.valid_from)
        assert [entry.subject for entry in audit.entries(gate.database)] == ["rita", "rita"]

    def test_a_name_has_one_key_and_a_key_one_name(self, gate: Gate) -> None:
        other = signing.generate().public_key()
        for name, key in (("rob", other), ("robert", gate.people.public("rob"))):
            with pytest.raises(Conflict, match="a name has one key"):
                add_user(gate.project, gate.people, "ann", name, ("reviewer",), key)
        assert trust_of(gate.project).revision == 1

    def test_without_the_root_key_nobody_is_added(self, gate: Gate) -> None:
        (gate.people.folder / "root-project").unlink()
        gate.people.generate("rita")
        with pytest.raises(NotFound, match="only the root key can change"):
            add_user(gate.project, gate.people, "ann", "rita", ("reviewer",))


class TestReview:
    def test_an_approval_is_signed_kept_counted_and_remembered(self, gate: Gate) -> None:
        names = [gate.version(seed) for seed in (1, 2, 3)]
        said = gate.say(names[1])
        assert said.version.label.startswith("1.")
        assert gate.say(names[0]).version.release == 2
        assert gate.say(names[1]).version.release == 1
        assert gate.versions.named(names[2]).release == 0
        decisions = read_decisions(gate.project.approvals, said.version.package_digest, trust_of(gate.project))
        assert [(one.signer, one.predicate.decision, one.predicate.evaluation) for one in decisions] == [
            ("rob", "approve", said.predicate.evaluation)
        ] * 2
        assert said.predicate.evaluation.startswith("sha256:")
        assert [entry.action for entry in audit.entries(gate.database)] == ["approve"] * 3
        assert audit.verify(gate.database) == 3

    def test_a_shadow_approval_is_no_release(self, gate: Gate) -> None:
        name = gate.version(1)
        assert gate.say(name, scope="shadow").version.release == 0
        with pytest.raises(NotApproved, match="no approval of the scope serve"):
            gate.rollout().deploy(name, E, "champion")

    def test_the_author_is_refused_and_it_is_written_down(self, gate: Gate) -> None:
        name = gate.version(1)
        for _ in range(2):  # first as somebody who may not judge at all, then as a reviewer of others
            with pytest.raises(FourEyes, match="ann trained this model"):
                gate.say(name, by="ann")
            gate.trust_everybody("team")
        assert refusals(gate) == [("ann", name, '{"action":"approve","code":"four_eyes"}')] * 2
        assert not gate.project.approvals.exists()

    def test_a_second_key_does_not_make_another_person(self, gate: Gate) -> None:
        gate.people.generate("ann2")
        add_user(gate.project, gate.people, "ann", "ann2", ("reviewer",), owner="ann")
        with pytest.raises(FourEyes):
            gate.say(gate.version(1), by="ann2")

    def test_alone_the_author_may_and_it_shows(self, gate: Gate) -> None:
        gate.trust_everybody("solo")
        assert gate.say(gate.version(1), by="ann").predicate.self_approved
        assert gate.rollout("ann").deploy(f"{E}:1", E, "champion").route.revision == 1

    @pytest.mark.parametrize("by", ["olga", "nobody"])
    def test_only_reviewers_decide(self, gate: Gate, by: str) -> None:
        name = gate.version(1)
        for decision in ("approve", "reject"):
            with pytest.raises(Refused):
                gate.say(name, by=by, decision=decision)
        assert [actor for actor, _, _ in refusals(gate)] == [by, by]

    @pytest.mark.parametrize("report", [None, {"proof": {"passed": False}}, {"proof": None}, {}])
    def test_nothing_is_approved_without_evidence(self, gate: Gate, report: dict[str, object] | None) -> None:
        name = gate.version(1, report)
        with pytest.raises(Refused, match=r"no evaluation|no passed round-trip proof"):
            gate.say(name)
        gate.say(name, decision="reject")
        assert len(refusals(gate)) == 1

    def test_an_altered_package_cannot_be_approved(self, gate: Gate) -> None:
        name = gate.version(1)
        model = gate.file(name, "model/model.skops")
        model.write_bytes(model.read_bytes()[:-1] + b"x")
        with pytest.raises(Tampered, match=r"model\.skops"):
            gate.say(name)
        assert refusals(gate)[0][2] == '{"action":"approve","code":"tampered"}'

    def test_a_rejection_takes_an_approval_back(self, gate: Gate) -> None:
        name = gate.version(1)
        gate.say(name)
        gate.say(name, decision="reject")
        with pytest.raises(NotApproved, match="was rejected by rob: looked at it"):
            gate.rollout().deploy(name, E, "champion")
        assert refusals(gate) == [("olga", E, '{"action":"deploy","code":"not_approved"}')]

    def test_a_decision_needs_a_reason(self, gate: Gate) -> None:
        with pytest.raises(Usage, match="needs a reason"):
            decide(gate.project, gate.database, "rob", gate.people, gate.version(1), "approve", "  ")
