"""The trust root changes hands: several root keys, proposals, rotations, revocations, keys of an ssh-agent, roles."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from tests.gate import Gate

from interlock.core import signing
from interlock.core.clock import SystemClock
from interlock.core.errors import Conflict, Expired, InterlockError, NotApproved, Refused, Tampered, Usage
from interlock.core.policy import Limits, Policy, Quorum
from interlock.core.trust import Role, TrustKeeper, TrustRoot, open_trust, read_trust, seal_trust
from interlock.registry import evidence
from interlock.registry.approvals import read_decisions
from interlock.release import audit
from interlock.release.keys import PASSPHRASE, PASSPHRASE_FILE, Keys
from interlock.release.review import Terms, decide
from interlock.release.roles import MAY, require_role
from interlock.release.tokens import Tokens
from interlock.release.users import add_user, read_proposal, revoke_key, rotate_key, set_policy, sign_root, trust_of

E = "flight-delay"
replace = msgspec.structs.replace


def admins(gate: Gate, *names: str, threshold: int = 2) -> None:
    """People with the role admin in the place of the project's root key, and so many of them sign."""
    for name in names:
        add_user(gate.project, gate.people, "setup", name, ("reviewer", "admin"))
    revoke_key(gate.project, gate.people, names[0], "root-project", reason="admins take its place")
    proposal = set_policy(gate.project, gate.people, names[0], None, threshold).proposal
    assert proposal is not None  # from two on it takes two
    assert sign_root(gate.project, gate.people, names[1], Path(proposal)).proposal is None


class TestSeveralRoots:
    def test_one_signature_is_a_proposal_and_the_last_one_puts_it_in_force(self, gate: Gate) -> None:
        pin = gate.project.root_fingerprint()
        admins(gate, "rob", "rhea")
        before = trust_of(gate.project)
        changed = add_user(gate.project, gate.people, "rob", "olga", ("operator", "analyst"))
        assert changed.proposal is not None
        assert trust_of(gate.project) == before
        file = Path(changed.proposal)
        assert read_proposal(gate.project, file)[1] == [
            f"olga, key {before.key_named('olga').keyid}: roles ('operator',) → ('operator', 'analyst')"
        ]
        with pytest.raises(Refused, match="no admin"):
            sign_root(gate.project, gate.people, "ann", file)
        again = sign_root(gate.project, gate.people, "rob", file)
        assert (again.proposal, len(again.signed_by)) == (str(file), 1)
        assert sign_root(gate.project, gate.people, "rhea", file).proposal is None
        now = read_trust(gate.project.trust, pin)  # whoever knows only the first root key follows
        assert now.key_named("olga").roles == ("operator", "analyst")
        assert (now.threshold, set(now.roots)) == (2, {now.key_named(name).keyid for name in ("rob", "rhea")})
        assert read_trust(gate.project.trust, now.fingerprint) == now
        assert not file.exists()
        with pytest.raises(FileNotFoundError):
            sign_root(gate.project, gate.people, "rhea", file)
        assert audit.entries(gate.database)[-1].action == "sign root"

    def test_an_edited_or_late_proposal_is_refused(self, gate: Gate) -> None:
        admins(gate, "rob", "rhea")
        file = Path(str(add_user(gate.project, gate.people, "rob", "olga", ("route",)).proposal))
        with pytest.raises(Conflict, match="waits for signatures"):
            add_user(gate.project, gate.people, "rob", "olga", ("author",))
        data = bytearray(file.read_bytes())
        data[300] ^= 1
        (file.parent / "edited").write_bytes(data)
        with pytest.raises(Tampered):
            sign_root(gate.project, gate.people, "rhea", file.parent / "edited")
        shutil.copy(file, file.parent / "late")
        sign_root(gate.project, gate.people, "rhea", file)
        with pytest.raises(Conflict, match="proposes revision 6, and 6 is in force"):
            sign_root(gate.project, gate.people, "rhea", file.parent / "late")

    def test_one_of_two_can_neither_lower_the_threshold_nor_leave_alone(self, gate: Gate) -> None:
        """Forged by somebody who has one of the two keys, and every file."""
        admins(gate, "rob", "rhea")
        trust = trust_of(gate.project)
        data, mine = gate.project.trust.read_bytes(), gate.people.load("rob")
        forged = [
            replace(trust, revision=trust.revision + 1),
            replace(trust, revision=trust.revision + 1, threshold=1),
            replace(trust, revision=trust.revision + 1, threshold=1, keys=(trust.key_named("rob"),)),
        ]
        for root in forged:
            sealed = seal_trust(root, mine)
            with pytest.raises(Tampered):
                open_trust(sealed, trust.fingerprint, (data,))
        with pytest.raises(Conflict, match="2 root keys are to sign, and there would be 1"):
            add_user(gate.project, gate.people, "rob", "rhea", ("reviewer",))

    def test_a_broken_chain_is_not_followed(self, gate: Gate) -> None:
        pin = gate.project.root_fingerprint()
        for _ in range(2):
            root = trust_of(gate.project).root_key
            names = [one.name for one in gate.people.entries()]
            name = next(one for one in names if signing.public_text(gate.people.public(one)) == root)
            rotate_key(gate.project, gate.people, "ann", name)
        assert read_trust(gate.project.trust, pin).revision == 3
        kept = gate.project.trust.with_suffix("")
        (kept / "2.dsse.json").unlink()
        with pytest.raises(Tampered, match="not signed by the root keys before it"):
            read_trust(gate.project.trust, pin)
        newest = msgspec.convert(signing.peek(gate.project.trust.read_bytes(), "it"), TrustRoot)
        assert read_trust(gate.project.trust, newest.fingerprint) == newest

    def test_what_was_put_back_is_noticed(self, gate: Gate) -> None:
        pin, old = gate.project.root_fingerprint(), gate.project.trust.read_bytes()
        keeper = TrustKeeper(gate.project.trust, pin)
        keeper.read()
        revoke_key(gate.project, gate.people, "ann", "rob")
        assert keeper.read().revision == 2
        gate.project.trust.write_bytes(old)
        with pytest.raises(Tampered, match="it was put back"):
            trust_of(gate.project)
        shutil.rmtree(gate.project.trust.with_suffix(""))  # now nothing on disk knows of the newer one
        assert trust_of(gate.project).revision == 1
        with pytest.raises(Tampered, match="in the place of revision 2"):
            keeper.read()
        with pytest.raises(Tampered, match="asks for a newer one"):
            read_trust(gate.project.trust, f"{pin}@2")


class TestRotation:
    def test_what_the_old_key_signed_stays_and_the_new_one_signs(self, gate: Gate) -> None:
        one, two = gate.version(1), gate.version(2)
        gate.say(one)
        made = rotate_key(gate.project, gate.people, "ann", "rob", reason="once a year").key
        assert made is not None
        assert made.keyid == signing.key_id(gate.people.public("rob-2"))
        assert gate.rollout().deploy(one, E, "champion").route.revision == 1
        gate.say(two)
        signers = [
            said.signer
            for name in (one, two)
            for said in read_decisions(
                gate.project.approvals, gate.versions.named(name).package_digest, trust_of(gate.project)
            )
        ]
        assert signers == ["rob", "rob"]
        with pytest.raises(Conflict, match="is trusted already"):
            rotate_key(gate.project, gate.people, "ann", "rob", gate.people.public("rob"))

    def test_an_operator_rotates_and_routes_go_on(self, gate: Gate) -> None:
        name = gate.version(1)
        gate.say(name)
        gate.rollout().deploy(name, E, "champion")
        rotate_key(gate.project, gate.people, "ann", "olga")
        rollout = gate.rollout()
        assert rollout.routes.read(E, rollout.trust).revision == 1
        assert rollout.change_parameters(E, {"RETRY": "3"}).route.revision == 2

    def test_revoking_from_a_time_on(self, gate: Gate) -> None:
        one, two = gate.version(1), gate.version(2)
        gate.say(one)
        since = SystemClock().now()
        gate.say(two)
        revoke_key(gate.project, gate.people, "ann", "rob", since, "stolen")
        assert gate.rollout().deploy(one, E, "champion").route.revision == 1
        with pytest.raises(NotApproved, match="that of rob is void"):
            gate.rollout().deploy(two, E, "challenger", buckets=100)


class TestPolicy:
    def test_a_quorum_by_class_and_the_first_signature_is_no_release(self, gate: Gate) -> None:
        policy = Policy({"medium": Quorum(2)}, {E: Limits(medium=0.05, high=0.5, approval_days=30)})
        set_policy(gate.project, gate.people, "ann", policy, None)
        name = gate.version(1)
        package = gate.versions.named(name).package_digest
        with gate.database.write() as connection:
            diff = evidence.store(
                connection, "diff", b'{"changes":{"changed":{"share":0.2}}}', package, None, "now", "rob"
            )

        def approve(by: str, **terms: Any) -> Any:
            said = Terms(diff=diff, **terms)
            return decide(gate.project, gate.database, by, gate.people, name, "approve", "fine", terms=said)

        with pytest.raises(Refused, match="that is the class medium, and not low"):
            approve("rob", risk="low")
        with pytest.raises(Refused, match="lets this approval live until"):
            approve("rob", expires=SystemClock().now() + timedelta(days=31))
        with pytest.raises(Refused, match="allows no override"):
            approve("rob", override="now")
        first = approve("rob")
        assert (first.version.release, first.predicate.risk) == (0, "medium")
        assert "1 of the 2 approvals on the same evidence that the class medium needs (rob)" in first.missing
        assert first.predicate.expires is not None
        with pytest.raises(NotApproved, match="1 of the 2"):
            gate.rollout().deploy(name, E, "champion")
        second = approve("rhea")
        assert (second.version.release, second.missing) == (1, "")
        assert gate.rollout().deploy(name, E, "champion").route.revision == 1

    def test_one_of_them_must_be_named(self, gate: Gate) -> None:
        set_policy(gate.project, gate.people, "ann", Policy({"low": Quorum(1, ("rhea",))}), None)
        name = gate.version(1)
        assert "needs one of rhea" in gate.say(name).missing
        assert gate.say(name, by="rhea").missing == ""

    def test_an_override_takes_an_admin_and_ends(self, gate: Gate) -> None:
        add_user(gate.project, gate.people, "ann", "olga", ("operator", "admin"))
        policy = Policy({"low": Quorum(3)}, {"default": Limits(override_hours=2)})
        set_policy(gate.project, gate.people, "olga", policy, None)
        name = gate.version(1)
        said = Terms(override="clients are wronged by the old one")
        results = [
            decide(gate.project, gate.database, by, gate.people, name, "approve", "now", terms=said)
            for by in ("rob", "olga")
        ]
        assert "takes a reviewer and another person with the role admin" in results[0].missing
        assert results[1].missing == ""
        with pytest.raises(Refused, match="has not the role reviewer"):  # without an override she is no reviewer
            gate.say(name, by="olga")
        gate.rollout().deploy(name, E, "champion")
        set_policy(
            gate.project, gate.people, "olga", replace(policy, limits={"default": Limits(override_hours=1e-9)}), None
        )
        with pytest.raises(Expired):
            gate.rollout().deploy(name, E, "challenger", buckets=1)

    def test_the_end_of_an_approval_freezes(self, gate: Gate) -> None:
        """It keeps what it has; it gets nothing more; ON_EXPIRY=stop wants the approval back."""
        one, two = gate.version(1), gate.version(2)
        for name, days in ((one, 1), (two, 100)):
            end = Terms(expires=SystemClock().now() + timedelta(days=days))
            decide(gate.project, gate.database, "rob", gate.people, name, "approve", "fine", terms=end)
        gate.rollout().deploy(one, E, "champion")
        gate.rollout().deploy(two, E, "challenger", buckets=1000)
        later = gate.rollout()
        later._clock = Later(days=2)
        assert later.traffic(E, {"champion": 8000, "challenger": 2000}).changed
        assert later.promote(E, "challenger").route.standby is not None  # it stands by as before, and cannot come back
        with pytest.raises(Expired, match="expired on"):
            later.roll_back(E)

    def test_an_expired_champion_gets_no_more(self, gate: Gate) -> None:
        one, two = gate.version(1), gate.version(2)
        for name, days in ((one, 1), (two, 100)):
            end = Terms(expires=SystemClock().now() + timedelta(days=days))
            decide(gate.project, gate.database, "rob", gate.people, name, "approve", "fine", terms=end)
        gate.rollout().deploy(one, E, "champion")
        gate.rollout().deploy(two, E, "challenger", buckets=2000)
        later = gate.rollout()
        later._clock = Later(days=2)
        with pytest.raises(Expired, match="expired on"):
            later.traffic(E, {"champion": 9000, "challenger": 1000})
        with pytest.raises(Expired):
            later.deploy(one, E, "champion", replicas=2)
        assert later.change_parameters(E, {"RETRY": "3", "ON_EXPIRY": "stop"}).changed
        with pytest.raises(Expired):
            later.traffic(E, {"champion": 7000, "challenger": 3000})


class Later:
    """The clock of some days on."""

    def __init__(self, days: float) -> None:
        self.days = days

    def now(self) -> Any:
        return SystemClock().now() + timedelta(days=self.days)


class TestRevoke:
    def test_it_takes_everything_back_and_only_what_was_approved(self, gate: Gate) -> None:
        name = gate.version(1)
        with pytest.raises(Conflict, match="nobody has approved"):
            gate.say(name, decision="revoke")
        gate.say(name)
        gate.say(name, by="rhea")
        add_user(gate.project, gate.people, "ann", "olga", ("operator", "admin"))
        gate.say(name, by="olga", decision="revoke")
        with pytest.raises(NotApproved, match="was revoked by olga: looked at it"):
            gate.rollout().deploy(name, E, "champion")
        with pytest.raises(Refused):
            gate.say(name, by="ann", decision="revoke")


DOCS = Path(__file__).parents[2] / "docs" / "reference" / "roles.md"


def test_the_table_of_roles_is_the_one_in_the_docs() -> None:
    head, _, *rows = [line for line in DOCS.read_text().splitlines() if line.startswith("|")][: len(MAY) + 2]
    roles = [cell.strip(" `") for cell in head.split("|")[2:-1]]
    assert roles == list(get_args(Role))
    told = {}
    for row in rows:
        action, *cells = (cell.strip(" `") for cell in row.split("|")[1:-1])
        told[re.sub(r" \(.*", "", action)] = {role for role, cell in zip(roles, cells, strict=True) if cell}
    assert told == {action: set(may) for action, may in MAY.items()}


@pytest.mark.parametrize("role", get_args(Role))
def test_every_role_may_do_what_the_table_says_and_nothing_else(gate: Gate, role: Role) -> None:
    """With a key of their own, whatever the database says of them. Walks every action."""
    gate.people.generate("zoe")
    set_policy(gate.project, gate.people, "ann", Policy({}, {"default": Limits(override_hours=1)}), None)
    add_user(gate.project, gate.people, "ann", "zoe", (role,))
    name, other = gate.version(1), gate.version(2)
    gate.say(name)
    said = Terms(override="now")
    (gate.people.folder / "root-project").unlink()

    def decided(decision: Any, terms: Terms | None = None) -> Any:
        return decide(gate.project, gate.database, "zoe", gate.people, name, decision, "because", terms=terms)

    actions: dict[str, Callable[[], Any]] = {
        "train": lambda: require_role(trust_of(gate.project), "zoe", "train"),
        "approve": lambda: decided("approve"),
        "override": lambda: decided("approve", said),
        "release": lambda: gate.rollout("zoe").deploy(name, E, "champion"),
        "tokens": lambda: Tokens(gate.project, "zoe", gate.people).create("shop", (), ("predict",), None),
        "decide experiments": lambda: require_role(trust_of(gate.project), "zoe", "decide experiments"),
        "trust": lambda: add_user(gate.project, gate.people, "zoe", "ann", ("author",)),
        "request_changes": lambda: gate.say(other, by="zoe", decision="request_changes"),
        "reject": lambda: gate.say(other, by="zoe", decision="reject"),
        "revoke": lambda: decided("revoke"),
    }
    assert actions.keys() == MAY.keys()
    for action, act in actions.items():
        if role in MAY[action]:  # type: ignore[index] # the keys are those of MAY
            act()
        else:
            with pytest.raises(InterlockError, match=r"has not the role|root key"):
                act()


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A real ssh-agent with an Ed25519, a P-256 and an RSA key."""
    if not shutil.which("ssh-agent"):
        pytest.skip("no ssh-agent on this machine: apt install openssh-client")
    where = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(where)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # it says where it listens
    monkeypatch.setenv("SSH_AUTH_SOCK", str(where))
    for kind in ("ed25519", "ecdsa", "rsa"):
        file = tmp_path / kind
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", f"{kind}@work", "-f", str(file)], check=True)
        subprocess.run(["ssh-add", "-q", str(file)], check=True)
    yield where
    process.terminate()
    process.communicate()


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_a_key_of_the_ssh_agent_signs(gate: Gate, agent: Path, kind: str) -> None:
    with pytest.raises(Usage, match="has 2 such keys"):
        gate.people.add_agent("zoe")
    gate.people.add_agent("zoe", f"{kind}@work")
    add_user(gate.project, gate.people, "ann", "zoe", ("reviewer", "admin"))
    name = gate.version(1)
    assert not (gate.people.folder / "zoe").exists()
    for _ in range(8):  # r and s have leading zeros now and then
        gate.say(name, by="zoe")
    assert gate.rollout().deploy(name, E, "champion").route.revision == 1
    add_user(gate.project, gate.people, "zoe", "ann", ("author", "analyst"))  # a root key in the agent
    assert len(trust_of(gate.project).roots) == 2
    subprocess.run(["ssh-add", "-q", "-D"], env=os.environ, check=True)
    with pytest.raises(InterlockError, match="the private key of zoe is not in"):
        gate.say(name, by="zoe")


def test_a_passphrase_from_a_file_that_nobody_else_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSPHRASE, raising=False)
    keys, file = Keys(tmp_path / "keys"), tmp_path / "passphrase"
    keys.generate("rita", passphrase="open sesame")
    monkeypatch.setenv(PASSPHRASE_FILE, str(file))
    with pytest.raises(InterlockError, match="which is no file"):
        keys.load("rita")
    file.write_text("open sesame\n")
    file.chmod(0o644)
    with pytest.raises(Refused, match="others can read") as caught:
        keys.load("rita")
    assert "sesame" not in str(caught.value)
    file.chmod(0o600)
    assert signing.key_id(keys.load("rita").public_key()) == keys.entries()[0].keyid


def test_a_rejection_after_the_times_of_keys(gate: Gate) -> None:
    """A rejection by a key that is revoked stays one."""
    name = gate.version(1)
    gate.say(name, by="rhea")
    gate.say(name, by="rob", decision="reject")
    revoke_key(gate.project, gate.people, "ann", "rob")
    with pytest.raises(NotApproved, match="was rejected by rob"):
        gate.rollout().deploy(name, E, "champion")
