"""Twenty-one bad candidates, and what stops each of them before it serves; and a good one, which nothing stops."""

from __future__ import annotations

import contextlib
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.planted_lab import E, PlantedLab, Servers

from interlock import cli
from interlock.core.errors import InvalidData, RecipeFailed
from interlock.core.policy import Limits, Policy, Quorum
from interlock.core.settings import SplitSettings, ValidationSettings
from interlock.evaluation import loadtest
from interlock.registry import evidence
from interlock.release import audit
from interlock.release.rollout import Rollout
from interlock.release.standard import Bench, Verdict, judge
from interlock.release.users import add_user, set_policy

Run = Callable[..., tuple[int, Any]]
SECONDS_A_ROW = 0.08


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlantedLab]:
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        made = PlantedLab(tmp_path_factory.mktemp("planted") / "project", patch)
        Servers(patch, stack)
        for name, value in (("WARM_SECONDS", 0.5), ("SEARCH_STEPS", 0)):
            patch.setattr(loadtest, name, value)
        patch.setenv("INTERLOCK_PROJECT", str(made.project.root))
        patch.setenv("INTERLOCK_KEYS_DIR", str(made.people.folder))
        patch.setenv("INTERLOCK_USER", "rob")
        yield made
        made.database.close()


@pytest.fixture
def run(lab: PlantedLab, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = cli.run([*words, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return call


EVIDENCE: dict[str, Callable[[str], tuple[str, ...]]] = {
    "diff": lambda name: ("diff", f"{E}:1", name),
    "loadtest": lambda name: ("loadtest", name, "--rate", "40", "--seconds", "0.5"),
    "skew": lambda name: ("skew", name),
}


def test_a_good_candidate_passes_once_its_evidence_is_there(lab: PlantedLab, run: Run) -> None:
    name = lab.train("good", proved=True)
    code, said = run("approve", name, "--reason", "fine")
    assert code == 1
    assert "there is no loadtest of it yet" in said["error"]["message"]
    assert said["error"]["next"] == f"interlock skew {name}"
    for make in EVIDENCE.values():
        assert run(*make(name))[0] == 0
    code, said = run("standard", name)
    assert code == 0, [one for one in said["standard"]["rules"] if one["verdict"] != "pass"]
    assert {one["verdict"] for one in said["standard"]["rules"]} == {"pass"}
    code, approved = run("approve", name, "--reason", "as good, and quicker")
    assert (code, approved["standard"], approved["missing"]) == (0, said["digest"], "")
    assert approved["diff"] == said["standard"]["judged"]["diff"]
    assert Rollout(lab.project, "olga", lab.people).deploy(name, E, "challenger", buckets=1000).changed


STOPPED: dict[str, tuple[dict[str, Any], str, str]] = {
    "worse": ({"without": ["visits"]}, "auc margin 0.02", ""),
    "harmed slice": ({"more": {"turned": True}}, "auc margin 0.02 in slices", ""),
    "miscalibrated": ({"more": {"sharp": 4.0}}, "ece max 0.06", ""),
    "decision flood": ({"more": {"shift": 1.5}}, "positive_rate margin 0.08", ""),
    "unfair": ({"more": {"members": 3.0}}, "equalised_odds max 0.25", ""),
    "constant": ({"without": ["visits", "gold", "member"]}, "auc better than a naive guess", ""),
    "oversize": ({"ballast": 200_000}, "package_mb max 0.5", ""),
    "shuffled labels": (
        {"sql": (" fate,", " CASE WHEN hash(customer) % 5 < 2 THEN 'left' ELSE 'stayed' END AS fate,")},
        "auc better than a naive guess", "",
    ),
    "stale labels": (
        {"sql": (" fate,", " CASE WHEN hash(customer) % 3 > 0 THEN 'stayed' ELSE fate END AS fate,")},
        "positive_rate margin 0.08", "",
    ),
    "drifted training data": ({"sql": (" visits,", " visits // 3 AS visits,")}, "drift max 0.2", ""),
    "too few rows": ({"sql": ("WHERE", "WHERE signup < '2030-04-01' AND")}, "rows min 300", ""),
    "skew": ({"sql": (" amount,", " amount * 100 AS amount,")}, "skew max 0.02", "skew"),
    "slow": ({"more": {"slow": 1}}, "latency_ms max 500", "loadtest"),
    "another decision for many": ({"more": {"shift": -1.0}}, "changed max 0.1", "diff"),
    "what no client sends": (
        {"settings": {"inputs": {"visits": "int", "member": "bool", "plan": "category", "coupon": "float"}}},
        "unsupported max 0.01", "diff",
    ),
}  # fmt: skip
"""How it is made, the rule that says no, and the evidence that it takes to say it."""


TAKES_LONG = ("slow", "another decision for many", "what no client sends")
"""They keep model servers busy for seconds, so the fast form leaves them out."""


@pytest.mark.parametrize(
    "what",
    [
        *(what for what in STOPPED if what not in TAKES_LONG),
        *(pytest.param(what, marks=pytest.mark.long) for what in TAKES_LONG),
    ],
)
def test_the_standard_stops(lab: PlantedLab, run: Run, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    how, rule, kind = STOPPED[what]
    name = lab.train(what, **how)
    monkeypatch.setenv("SLOW", str(SECONDS_A_ROW))  # from here on: whoever is slow was not so while it was trained
    if kind:
        assert run(*EVIDENCE[kind](name))[0] == 0
    code, said = run("standard", name)
    assert code == 1
    found = {one["rule"]: one for one in said["standard"]["rules"]}
    assert found[rule]["verdict"] == "fail", found
    code, said = run("approve", name, "--reason", "looks nice")
    assert (code, said["error"]["code"]) == (1, "refused")
    assert f"{rule}: {found[rule]['sentence']}" in said["error"]["message"]


COPIES = "SELECT customer, fate = 'left' AS gone, customer AS number,"
INPUTS = {"visits": "int", "member": "bool", "plan": "category"}


@pytest.mark.parametrize(
    ("what", "settings", "rule"),
    [
        ("label copy", {"inputs": {**INPUTS, "gone": "bool"}}, "label_copy, gone"),
        ("id copy", {"inputs": {**INPUTS, "number": "category"}}, "id_copy, number"),
        (
            "test rows in training",
            {"split": SplitSettings("random"), "validation": ValidationSettings(time_overlap=True)},
            "time_overlap",
        ),
    ],
)
def test_data_validation_stops(lab: PlantedLab, what: str, settings: dict[str, Any], rule: str) -> None:
    with pytest.raises(InvalidData, match=rule):
        lab.train(what, sql=("SELECT customer,", COPIES), settings=settings)


def test_the_round_trip_stops_a_model_that_throws_dice(lab: PlantedLab) -> None:
    with pytest.raises(RecipeFailed):
        lab.train("dice", proved=True, more={"noise": 0.5})


def test_registration_stops_a_pickle(lab: PlantedLab, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "model.pkl"
    file.write_bytes(pickle.dumps({"weights": [1.0]}))
    code, said = run("register", str(file), "--as", "ann")
    assert (code, said["error"]["code"]) == (1, "refused")
    assert "pickle" in said["error"]["message"]


def test_who_goes_past_the_standard_is_two_and_on_record(lab: PlantedLab, run: Run) -> None:
    name = lab.train("emergency", more={"sharp": 3.0})
    add_user(lab.project, lab.people, "ann", "olga", ("operator", "admin"))
    words = ("approve", name, "--reason", "the champion is worse", "--override", "clients are wronged")
    code, said = run(*words)
    assert (code, said["error"]["code"]) == (1, "refused")
    assert "allows no override" in said["error"]["message"]
    set_policy(lab.project, lab.people, "olga", Policy({}, {"default": Limits(override_hours=2)}), None)
    code, first = run(*words)
    assert (code, first["override"]) == (0, "clients are wronged")
    assert "takes a reviewer and another person with the role admin" in first["missing"]
    code, second = run(*words, "--as", "olga")
    assert (code, second["missing"], second["standard"]) == (0, "", first["standard"])
    verdict = evidence.decode(evidence.read(lab.database, first["standard"]), Verdict)
    assert "ece max 0.06" in [one.rule for one in verdict.failed]
    told = [entry.values[1] for entry in audit.entries(lab.database, subject=name, action="approve")]
    assert [(one["override"], one["standard"]) for one in told] == [("clients are wronged", first["standard"])] * 2
    assert audit.entries(lab.database, subject=name, action="standard")[-1].values[1]["passed"] is False


def test_two_reviewers_sign_one_verdict_and_a_changed_standard_makes_it_stale(lab: PlantedLab, run: Run) -> None:
    name = f"{E}:2"  # the good one, and its evidence
    set_policy(lab.project, lab.people, "ann", Policy({"low": Quorum(2)}), None)
    (_, seen), (_, again) = run("standard", name), run("standard", name)
    assert seen["digest"] == again["digest"]
    config, text = lab.project.config, lab.project.config.read_text()
    config.write_text(text.replace('metric = "rows", min = 300', 'metric = "rows", min = 301'))
    code, said = run("approve", name, "--reason", "fine", "--standard", seen["digest"])
    config.write_text(text)
    assert (code, said["error"]["message"]) == (1, f"{seen['digest']} does not hold any more: the standard")
    assert run("approve", name, "--reason", "fine", "--standard", seen["digest"])[1]["standard"] == seen["digest"]
    code, second = run("approve", name, "--reason", "fine", "--as", "rhea")
    assert (code, second["missing"], second["standard"]) == (0, "", seen["digest"])
    assert run("review", name)[1]["standard"]["passed"] is True


def test_a_change_of_what_is_in_force_makes_evidence_stale(lab: PlantedLab) -> None:
    rollout = Rollout(lab.project, "olga", lab.people)
    rollout.change_parameters(E, {"THRESHOLD": "0.6"})
    found = {one.rule: one for one in judge(Bench(lab.project, lab.database, f"{E}:2")).rules}
    assert "evaluated at the threshold 0.4, and 0.6 is deployed" in found["auc min 0.75"].sentence
    assert found["changed max 0.1"].sentence == "the diff has flight-delay:1 under other parameters than are in force"
    assert found["changed max 0.1"].next == f"interlock diff {E}:1 {E}:2"
    rollout.change_parameters(E, {"THRESHOLD": "0.4"})
