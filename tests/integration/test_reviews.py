"""A review as a pull request: bound to what was looked at, one after the other, with changes requested and overrides owed."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import msgspec
import pytest
from sqlalchemy import delete
from tests.gate import PASSED, Gate
from tests.house import Process
from tests.receivers import mail_server, webhook
from tests.unit.test_report_views import report

from interlock.cli import run
from interlock.core import signing
from interlock.core.clock import SystemClock, iso
from interlock.core.errors import Conflict, InterlockError, NotApproved, Refused, Usage
from interlock.core.hashing import canonical
from interlock.core.policy import Limits, Policy, Quorum
from interlock.evaluation.report import Proof, encode
from interlock.registry import evaluations, evidence
from interlock.registry.approvals import read_decisions
from interlock.release import acts, audit, reviews
from interlock.release.keys import Keys
from interlock.release.review import Terms, decide
from interlock.release.users import add_user, set_policy, trust_of
from interlock.release.waiting import Waiting, waiting
from interlock.store.tables import review_notes

E = "flight-delay"


def show(gate: Gate, name: str) -> str:
    """What `interlock review` keeps and shows of the state."""
    version, trust = gate.versions.named(name), trust_of(gate.project)
    decisions = read_decisions(gate.project.approvals, version.package_digest, trust)
    seen = reviews.look(gate.database, version, decisions, trust)
    with gate.database.write() as connection:
        reviews.keep(connection, seen, "somebody")
    return seen.short


def word(gate: Gate, name: str, by: str, decision: Any = "approve", seen: str = "", **terms: Any) -> Any:
    """A person decides on what they saw."""
    said = Terms(**terms)
    return decide(gate.project, gate.database, by, gate.people, name, decision, "because", terms=said, seen=seen)


def add(gate: Gate, name: str, kind: Any, text: str, against: str | None = None) -> str:
    """New evidence."""
    package, now = gate.versions.named(name).package_digest, iso(SystemClock().now())
    with gate.database.write() as connection:
        if kind == "evaluation":
            return evaluations.store(
                connection, canonical({**PASSED, "package": package, "n": text}), package, None, now
            )
        document = canonical({"changes": {"changed": {"share": 0.0}}, "n": text, "of": kind})
        return evidence.store(connection, kind, document, package, against, now, "ann")


def policy(gate: Gate, quorum: int = 1, **limits: float) -> None:
    set_policy(gate.project, gate.people, "ann", Policy({"low": Quorum(quorum)}, {"default": Limits(**limits)}), None)


def listed(gate: Gate) -> list[Waiting]:
    return waiting(gate.project, gate.database, trust_of(gate.project), SystemClock().now())


def states(gate: Gate) -> dict[str, str]:
    return {one.name: one.state for one in listed(gate)}


class Meeting(Keys):
    """Keys of somebody who signs only when the other has read everything too."""

    def __init__(self, folder: Path, barrier: Barrier) -> None:
        super().__init__(folder)
        self.barrier = barrier

    def load(self, name: str) -> signing.PrivateKey:
        self.barrier.wait(30)
        return super().load(name)


class TestSeen:
    @pytest.mark.parametrize(
        ("event", "said"),
        [
            (
                lambda gate, name: add(gate, name, "evaluation", "2"),
                r"the evaluation sha256:\w{64} was replaced by sha256:",
            ),
            (
                lambda gate, name: add(gate, name, "diff", "2", "sha256:q"),
                r"the diff sha256:\w{64} was replaced by sha256:",
            ),
            (lambda gate, name: add(gate, name, "loadtest", "1"), r"the loadtest sha256:\w{64} came"),
            (lambda gate, name: add(gate, name, "skew", "1"), r"the skew sha256:\w{64} came"),
            (lambda gate, name: add(gate, name, "standard", "1"), r"the standard sha256:\w{64} came"),
            (lambda gate, name: word(gate, name, "rhea", "reject"), r"looked at: rejected by rhea at 2\S+: because$"),
            (lambda gate, name: policy(gate, 2), r"looked at: the policy sha256:\w{64} was replaced by sha256:\w{64}$"),
        ],
    )
    def test_a_decision_on_another_state_is_a_conflict_that_says_what_changed(
        self, gate: Gate, event: Callable[[Gate, str], object], said: str
    ) -> None:
        name = gate.version(1)
        add(gate, name, "diff", "1", "sha256:q")
        old = show(gate, name)
        event(gate, name)
        for decision in ("approve", "reject", "request_changes"):
            with pytest.raises(Conflict, match=said):
                word(gate, name, "rob", decision, seen=old)
        word(gate, name, "rob", seen=show(gate, name))

    def test_what_is_no_news_changes_nothing(self, gate: Gate) -> None:
        name, other = gate.version(1), gate.version(2)
        old = show(gate, name)
        add(gate, other, "loadtest", "1")
        add(gate, name, "diff", "its parameters", gate.versions.named(name).package_digest)
        word(gate, other, "rhea")
        reviews.comment(gate.project, gate.database, "ann", gate.people, name, "please look")
        assert show(gate, name) == old
        word(gate, name, "rob", seen=old)

    @pytest.mark.parametrize("seen", ["0" * 12, "", "abc", "sha256:"])
    def test_a_state_that_nobody_was_shown_is_refused(self, gate: Gate, seen: str) -> None:
        name = gate.version(1)
        short = show(gate, name)
        with pytest.raises(Usage, match="no review of flight-delay:1 has shown"):
            word(gate, name, "rob", seen=seen or short[:11])

    def test_of_two_at_once_the_second_is_told_of_the_first(self, gate: Gate) -> None:
        name, barrier = gate.version(1), Barrier(2)

        def act(by: str, decision: Any) -> object:
            keys = Meeting(gate.people.folder, barrier)
            try:
                return decide(gate.project, gate.database, by, keys, name, decision, f"{by} says so")
            except Conflict as error:
                return error

        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(act, ("rob", "rhea"), ("approve", "reject")))
        (error,) = (one for one in results if isinstance(one, Conflict))
        first, how = ("rob", "approved") if results.index(error) else ("rhea", "rejected")
        assert f"looked at: {how} by {first} at 2" in error.message
        assert error.message.endswith(f": {first} says so")
        assert error.next == f"look again: interlock review {name}"
        package = gate.versions.named(name).package_digest
        assert [one.signer for one in read_decisions(gate.project.approvals, package, trust_of(gate.project))] == [
            first
        ]
        assert acts.verify(gate.project) == 1

    def test_nobody_is_kept_from_revoking(self, gate: Gate) -> None:
        name, barrier = gate.version(1), Barrier(2)
        gate.say(name)

        def revoke(by: str) -> Any:
            return decide(gate.project, gate.database, by, Meeting(gate.people.folder, barrier), name, "revoke", "leak")

        with ThreadPoolExecutor(2) as pool:
            assert [one.predicate.decision for one in pool.map(revoke, ("rob", "rhea"))] == ["revoke", "revoke"]


class TestRequestedChanges:
    def test_approvals_before_count_no_more_and_later_ones_do(self, gate: Gate) -> None:
        policy(gate, 2)
        name = gate.version(1)
        assert word(gate, name, "rob").missing
        word(gate, name, "rhea", "request_changes")
        assert [(one.state, one.who, one.why[:23]) for one in listed(gate)] == [
            ("sent back for changes", ("ann",), "sent back for changes b")
        ]
        with gate.database.write() as connection:
            connection.execute(delete(review_notes))  # the signed file says so, not the database
        with pytest.raises(NotApproved, match="was sent back for changes by rhea: because"):
            gate.rollout().deploy(name, E, "champion")
        assert "1 of the 2" in word(gate, name, "rhea").missing
        assert [(one.state, one.who) for one in listed(gate)] == [("needs signatures", ("rob",))]
        assert word(gate, name, "rob").missing == ""
        assert listed(gate) == []
        assert gate.rollout().deploy(name, E, "champion").route.revision == 1
        assert acts.verify(gate.project) == 7
        (entry,) = audit.entries(gate.database, action="request_changes")
        assert (entry.actor, entry.subject, entry.reason) == ("rhea", name, "because")

    def test_a_version_that_may_serve_is_revoked_instead(self, gate: Gate) -> None:
        name = gate.version(1)
        gate.say(name, scope="shadow")
        word(gate, name, "rhea", "request_changes")
        gate.say(name)
        with pytest.raises(Conflict, match="is approved and may be served") as caught:
            word(gate, name, "rhea", "request_changes")
        assert caught.value.next.startswith(f"interlock revoke {name}")
        assert gate.rollout().deploy(name, E, "champion").route.revision == 1


class TestStale:
    def test_an_approval_on_replaced_evidence_counts_and_is_shown_and_is_followed_by_one_on_the_new(
        self, gate: Gate
    ) -> None:
        name = gate.version(1)
        diff = add(gate, name, "diff", "1", "sha256:q")
        first = word(gate, name, "rob", diff=diff).predicate
        other = add(gate, name, "diff", "beside another version", "sha256:r")
        assert listed(gate) == []
        new, judged = add(gate, name, "diff", "2", "sha256:q"), add(gate, name, "evaluation", "2")
        (one,) = listed(gate)
        assert (one.state, one.who) == ("stale", ("rob", "rhea"))
        assert one.why == (
            f"the evaluation {first.evaluation} was replaced by {judged}; the diff {diff} was replaced by {new}"
        )
        assert gate.rollout().deploy(name, E, "champion").route.revision == 1, "the gate keeps its word"
        with pytest.raises(Refused, match=f"the diff {diff} was replaced by {new}"):
            word(gate, name, "rhea", diff=diff)
        word(gate, name, "rhea", diff=other)
        assert listed(gate) == []


class TestChecklist:
    def test_every_item_is_named_or_it_is_refused(self, gate: Gate) -> None:
        config = gate.project.config
        config.write_text(config.read_text() + '[review]\nchecklist = ["slices read", "labels are old enough"]\n')
        name = gate.version(1)
        with pytest.raises(Refused, match=r"the checklist is not done: 2 labels are old enough$"):
            word(gate, name, "rob", checklist=("1",))
        for given, said in (("3", "no item"), ("", "several items"), ("nothing", "no item")):
            with pytest.raises(Usage, match=f"names {said} of the checklist: 1 slices read; 2 labels"):
                word(gate, name, "rob", checklist=(given,))
        said = word(gate, name, "rob", checklist=("Labels", "1")).predicate
        assert said.checklist == ("slices read", "labels are old enough")
        word(gate, name, "rob", "reject")

    def test_without_a_checklist_nothing_can_be_ticked(self, gate: Gate) -> None:
        with pytest.raises(Usage, match="names no item of the checklist: empty"):
            word(gate, gate.version(1), "rob", checklist=("slices",))


class TestOverride:
    @pytest.fixture
    def names(self, gate: Gate) -> list[str]:
        add_user(gate.project, gate.people, "ann", "olga", ("operator", "admin"))
        set_policy(gate.project, gate.people, "olga", Policy({}, {"default": Limits(override_hours=2)}), None)
        return [gate.version(1), gate.version(2)]

    @pytest.mark.parametrize("end", ["approve", "reject", "revoke"])
    def test_the_review_afterwards_is_owed_and_until_then_there_is_no_other(
        self, gate: Gate, names: list[str], end: str
    ) -> None:
        word(gate, names[0], "rob", override="clients are wronged")
        assert states(gate) == {names[0]: "needs signatures", names[1]: "to review"}, (
            "the second signature is no other one"
        )
        word(gate, names[0], "olga", override="clients are wronged")
        (owed,) = (one for one in listed(gate) if one.name == names[0])
        assert (owed.state, owed.who) == ("override", ("rob", "rhea"))
        assert "olga signed at" in owed.why
        assert owed.why.endswith("that it goes past the gate: clients are wronged")
        for name in names:
            with pytest.raises(Refused, match=f"an earlier override of {E} is still to be reviewed"):
                word(gate, name, "rob", override="again")
        word(gate, names[0], "rhea", end)
        assert states(gate) == {names[1]: "to review"}
        assert "admin" in word(gate, names[1], "rob", override="again").missing

    def test_an_approval_as_a_shadow_is_no_review(self, gate: Gate, names: list[str]) -> None:
        for by in ("rob", "olga"):
            word(gate, names[0], by, override="now")
        gate.say(names[0], by="rhea", scope="shadow")
        assert states(gate)[names[0]] == "override"


def test_news_are_told_by_a_worker_once_and_until_each_channel_has_taken_it(gate: Gate) -> None:
    policy(gate, 2)
    name, _, new = gate.version(1), gate.version(2, report=None), gate.version(3)
    reviews.comment(gate.project, gate.database, "ann", gate.people, name, "the new carrier is in")
    word(gate, name, "rob", "request_changes")
    word(gate, name, "rob")

    def work() -> None:
        worker = Process("worker", "--project", str(gate.project.root), "--until-idle").ready()
        assert worker.child.process.wait(30) == 0
        worker.stop()

    with webhook() as hook, mail_server() as mail:
        config = gate.project.config
        config.write_text(
            f'{config.read_text()}[review]\nwebhook = "http://127.0.0.1:{hook.port}/"\nmail = ["review@my.org"]\n'
            f'[mail]\nserver = "127.0.0.1:{mail.port}"\nsecurity = "none"\n'
        )
        hook.answer = 503
        work()
        assert {one["event"] for one in hook.heard} == {"review_comment"}, "the first failure ends a round"
        assert [one["subject"] for one in mail.heard] == [f"{name}: a review"] * 3 + [f"{new}: a review"]
        text = mail.heard[1].get_content().replace("\r", "")
        assert f"rob requested changes of {name}: because\n\ninterlock review {name}\n\nwho may sign: rhea" in text
        hook.answer, hook.heard[:] = 200, []
        work()
        work()
    assert [(one["event"], one["name"], one["author"], one["who"]) for one in hook.heard] == [
        ("review_comment", name, "ann", ["rhea"]),
        ("review_changes", name, "rob", ["rhea"]),
        ("review_signature", name, "rob", ["rhea"]),
        ("review_ready", new, "ann", ["rob", "rhea"]),
    ]
    assert len(mail.heard) == 4


def test_the_day_of_a_review_on_the_command_line(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INTERLOCK_KEYS_DIR", str(gate.people.folder))
    monkeypatch.chdir(gate.project.root)

    def typed(line: str, code: int = 0) -> Any:
        assert run([*shlex.split(line), "--json"]) == code
        return msgspec.json.decode(capsys.readouterr().out)

    name = gate.version(1, report=None)
    config = gate.project.config
    config.write_text(config.read_text() + '[review]\nchecklist = ["slices read"]\n')
    made = msgspec.structs.replace(report(), proof=Proof(True, 1, ("raw",), 1e-9, 0.0))
    with gate.database.write() as connection:
        evaluations.store(connection, encode(made), gate.versions.named(name).package_digest, None, made.created)
    (row,) = typed("reviews")["items"]
    assert (row["state"], row["who"]) == ("to review", ["rob", "rhea"])
    said = typed(f"comment {name} --text 'why is EWR worse?' --as olga")
    first = typed(f"review {name} --html r.html")
    assert [(one["author"], one["text"]) for one in first["notes"]] == [("olga", "why is EWR worse?")]
    assert said["about"].startswith(f"sha256:{first['seen']}")
    assert "why is EWR worse?" in Path("r.html").read_text()
    typed(f"request-changes {name} --reason 'say why' --seen {first['seen']} --as rob")
    error = typed(f"reject {name} --reason no --seen {first['seen']} --as rhea", code=1)["error"]
    assert error["code"] == "conflict"
    assert "sent back for changes by rob at " in error["message"]
    assert run(["review", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "    1 slices read" in lines
    approve = shlex.split(next(line for line in lines if line.startswith("Next:")))[2:]
    assert approve[:4] == ["approve", name, "--as", "rob"]
    (row,) = typed("versions list")["items"]
    assert (row["state"], row["decision"]) == ("sent back for changes", "request_changes serve")
    assert run(approve) == 1
    assert "look, then add --checked 1" in capsys.readouterr().err
    assert run([*approve, "--checked", "slices"]) == 0
    capsys.readouterr()
    assert typed(f"versions show {name}")["decisions"][1]["checklist"] == ["slices read"]
    assert typed(f"comment {name} --text x --as nobody", code=1)["error"]["code"] == "refused"
    assert typed("audit verify")["intact"] is True


def test_who_has_no_key_of_a_name_says_nothing_in_it(gate: Gate, tmp_path: Path) -> None:
    name = gate.version(1)
    with pytest.raises(InterlockError):
        reviews.comment(gate.project, gate.database, "rob", Keys(tmp_path / "none"), name, "fine by me")
    assert reviews.comments(gate.database, gate.versions.named(name).package_digest) == []
