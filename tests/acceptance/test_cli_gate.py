"""The gate through the command line, as the three people use it: real keys, packages, model servers and gateways."""

from __future__ import annotations

import http.client
import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.commands import Commands
from tests.gate import Gate
from tests.house import Process, free_port, running

from interlock.registry.packages import package_hex
from interlock.registry.routes import replica_name

E = "flight-delay"


@pytest.fixture
def everybody(gate: Gate) -> Commands:
    return Commands(gate.project.root, gate.people.folder)


def test_each_person_has_a_folder_of_keys_of_their_own(gate: Gate, tmp_path: Path) -> None:
    """rob has only his key: he signs as himself and as nobody else."""
    name = gate.version(1)
    robs = tmp_path / "robs"
    robs.mkdir(mode=0o700)
    for file in ("rob", "rob.pub"):
        shutil.copy(gate.people.folder / file, robs / file)
    rob = Commands(gate.project.root, robs)
    assert rob.refused("approve", name, "--reason", "fine", code=2)["next"] == "add --as NAME, or set INTERLOCK_USER"
    assert rob.json("approve", name, "--reason", "fine", "--as", "rob")["signed_by"] == "rob"
    assert rob.refused("deploy", name, "--to", E, "--as", "champion", "--as", "olga")["code"] == "not_found"
    assert rob.refused("users", "add", "rob", "--role", "operator")["code"] == "not_found"
    me = Commands(gate.project.root, robs, INTERLOCK_USER="rob")
    assert me.refused("deploy", name, "--to", E, "--as", "champion")["code"] == "refused"


def test_a_new_reviewer_is_made_trusted_and_signs(gate: Gate, everybody: Commands, tmp_path: Path) -> None:
    name = gate.version(1)
    rita = Commands(gate.project.root, tmp_path / "ritas", INTERLOCK_USER="rita")
    made = rita.json("keys", "generate", "rita")
    assert rita.refused("approve", name, "--reason", "fine")["message"].startswith(
        "rita is not in this project's trust root"
    )
    added = everybody.json("users", "add", "rita", "--role", "reviewer", "--public-key", f"{made['path']}.pub")
    assert (added["keyid"], added["roles"]) == (made["keyid"], ["reviewer"])
    assert [one["name"] for one in rita.json("users", "list")["items"]] == ["ann", "rob", "rhea", "olga", "rita"]
    said = rita.json("approve", name, "--reason", "fine")
    assert said["label"].startswith("1.")
    assert Path(said["approval"]).is_file()
    listed = rita.json("versions", "list")["items"]
    assert [(one["name"], one["decision"], one["signed_by"]) for one in listed] == [(name, "approve serve", "rita")]


def test_the_author_is_refused_and_the_trail_says_so(gate: Gate, everybody: Commands) -> None:
    name = gate.version(1)
    everybody.json("users", "add", "ann", "--role", "author", "--role", "reviewer")
    error = everybody.refused("approve", name, "--reason", "mine", "--as", "ann")
    assert error["code"] == "four_eyes"
    plain = everybody.run("approve", name, "--reason", "mine", "--as", "ann")
    assert (plain.returncode, plain.stdout) == (1, "")
    assert plain.stderr.splitlines()[0] == "error: ann trained this model and may not sign it"
    refused = [one for one in everybody.json("audit")["items"] if one["action"] == "refused"]
    assert [(one["actor"], one["subject"]) for one in refused] == [("ann", name), ("ann", name)]
    assert json.loads(refused[0]["after"]) == {"action": "approve", "code": "four_eyes"}
    assert everybody.json("audit", "verify") == {"entries": 3, "intact": True}


def test_who_revokes_the_only_champion_is_told_what_works(gate: Gate, everybody: Commands) -> None:
    names = [gate.version(seed) for seed in (1, 2)]
    for name in names:
        everybody.json("approve", name, "--reason", "fine", "--as", "rob")
    everybody.json("deploy", names[0], "--to", "flight-delay", "--as", "champion", "--as", "olga", "--no-wait")
    told = everybody.run("revoke", names[0], "--reason", "leak", "--as", "rob").stdout
    assert "interlock deploy flight-delay:V --to flight-delay --as champion --as olga" in told
    assert "rollback" not in told
    everybody.json("deploy", names[1], "--to", "flight-delay", "--as", "champion", "--as", "olga", "--no-wait")


def ask(line: str) -> dict[str, list[dict[str, object]]]:
    """Type the curl that deploy printed."""
    words = shlex.split(line)
    assert words[0] == "curl"
    done = subprocess.run([*words, "--fail-with-body"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    answer: dict[str, list[dict[str, object]]] = json.loads(done.stdout)
    return answer


@pytest.mark.skipif(shutil.which("curl") is None, reason="the printed line needs curl")
def test_deploy_returns_when_the_arm_answers(gate: Gate, everybody: Commands) -> None:
    names = [gate.version(seed) for seed in (1, 2)]
    digests = [gate.versions.named(name).package_digest for name in names]
    for name in names:
        everybody.json("approve", name, "--reason", "fine", "--as", "rob")
    root = gate.project.root_fingerprint()
    sockets = gate.project.make_sockets()

    def server(digest: str) -> Process:
        return Process(
            "model_server", "--package", str(gate.project.packages / package_hex(digest)),
            "--approval", str(gate.project.approvals / package_hex(digest)), "--trust", str(gate.project.trust),
            "--root", root, "--socket", str(sockets / replica_name(digest, 1)),
        )  # fmt: skip

    gateway = Process(
        "gateway", "--project", str(gate.project.root), "--slot", "0", environment={"INTERLOCK_PARAM__RETRY": "0"}
    )
    with running(gateway, *map(server, digests)):
        champion = everybody.json("deploy", names[0], "--to", E, "--as", "champion", "--as", "olga")
        assert (champion["revision"], champion["gateways"]) == (1, 1)
        assert set(ask(champion["curl"])["predictions"][0]) == {"score", "label"}

        challenger = everybody.json(
            "deploy", names[1], "--to", E, "--as", "challenger", "--weight", "20%", "--as", "olga"
        )
        assert {arm["arm"]: arm["percent"] for arm in challenger["arms"]} == {"champion": 80.0, "challenger": 20.0}
        assert challenger["gateways"] == 1

        stopped = everybody.run(
            "params", E, "ACTIVATE=false", 'FALLBACK={"score": 0.25, "label": false}', "--as", "olga"
        )
        assert "ACTIVATE: yes → no" in stopped.stdout
        assert ask(champion["curl"])["predictions"] == [{"score": 0.25, "label": False}]  # obeyed when it returned

        pinned = everybody.refused("params", E, "RETRY=1", "--as", "olga")
        assert pinned["code"] == "refused"
        assert pinned["message"] == "RETRY is pinned by environment of gateway 0 (INTERLOCK_PARAM__RETRY)"
        shown = {row["parameter"]: row for row in everybody.json("params", E)["items"]}
        assert shown["ACTIVATE"]["value"] is False
        assert shown["RETRY"]["pinned"] == ["0 by INTERLOCK_PARAM__RETRY of gateway 0"]

        promoted = everybody.json("promote", E, "--as", "olga")
        assert (promoted["arms"][0]["version"], promoted["standby"]) == (names[1], names[0])
        back = everybody.json("rollback", E, "--as", "olga", "--reason", "worse")
        assert (back["arms"][0]["version"], back["standby"], back["gateways"]) == (names[0], names[1], 1)
    assert everybody.json("audit", "verify")["intact"]


class TestModelServer:
    """By hand: refused means exit 1, one sentence, no port opened, and an entry in the trail."""

    @pytest.fixture
    def words(self, gate: Gate) -> dict[str, str]:
        name = gate.version(1)
        gate.say(name)
        digest = package_hex(gate.versions.named(name).package_digest)
        return {
            "--package": str(gate.project.packages / digest),
            "--approval": str(next((gate.project.approvals / digest).iterdir())),
            "--trust": str(gate.project.trust),
            "--root": gate.project.root_fingerprint(),
            "--port": str(free_port()),
        }

    def flat(self, words: dict[str, str]) -> list[str]:
        return [word for pair in words.items() for word in pair]

    @pytest.mark.parametrize("what", ["package", "approval", "unsigned"])
    def test_what_was_altered_or_never_signed_is_refused(
        self, gate: Gate, everybody: Commands, words: dict[str, str], what: str
    ) -> None:
        if what == "unsigned":
            del words["--approval"]
        else:
            file = Path(words["--approval"]) if what == "approval" else Path(words["--package"]) / "features.py"
            data = bytearray(file.read_bytes())
            data[len(data) // 2] ^= 1
            file.write_bytes(data)
        done = everybody.run("model-server", *self.flat(words), "--as", "ann")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr
        with pytest.raises(ConnectionRefusedError):
            http.client.HTTPConnection("127.0.0.1", int(words["--port"])).connect()
        entry = everybody.json("audit", "--last", "1")["items"][0]
        expected = "not_approved" if what == "unsigned" else "tampered"
        assert (entry["actor"], entry["action"]) == ("ann", "refused")
        assert json.loads(entry["after"]) == {"action": "model-server", "code": expected}
        assert entry["reason"] in done.stderr

    def test_outside_a_project_it_refuses_all_the_same(
        self, everybody: Commands, words: dict[str, str], tmp_path: Path
    ) -> None:
        (tmp_path / "elsewhere").mkdir()
        words["--root"] = "sha256:" + "0" * 64
        stranger = Commands(tmp_path / "elsewhere", tmp_path)
        assert stranger.refused("model-server", *self.flat(words))["code"] == "tampered"

    def test_it_serves_until_it_is_told_to_stop(self, everybody: Commands, words: dict[str, str]) -> None:
        from tests.commands import SCRIPT

        with subprocess.Popen(
            [str(SCRIPT), "model-server", *self.flat(words)],
            cwd=everybody.directory,
            env=everybody.environment,
            stdout=subprocess.PIPE,
        ) as server:
            assert server.stdout is not None
            assert server.stdout.readline().startswith(b"ready: flight-delay sha256:")
            connection = http.client.HTTPConnection("127.0.0.1", int(words["--port"]), timeout=30)
            connection.request("GET", "/v2/health/ready")
            assert connection.getresponse().status == 200
            connection.close()
            server.terminate()
            assert server.wait(30) == 0
        with pytest.raises(ConnectionRefusedError):
            http.client.HTTPConnection("127.0.0.1", int(words["--port"])).connect()


def test_a_revoked_key_counts_no_more(gate: Gate, everybody: Commands) -> None:
    name = gate.version(1)
    everybody.json("approve", name, "--as", "rob", "--reason", "fine")
    assert everybody.json("keys", "revoke", "rob", "--reason", "laptop lost")["valid_to"]
    said = everybody.refused("deploy", name, "--to", "flight-delay", "--as", "champion", "--as", "olga")
    assert "that of rob is void" in said["message"]
    assert everybody.refused("approve", name, "--as", "rob", "--reason", "again")["code"] == "refused"
    early = ("--reason", "x", "--since", "2001-01-01T00:00:00Z")
    assert "is trusted from" in everybody.refused("keys", "revoke", "rob", *early, code=2)["message"]
