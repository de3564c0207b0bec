"""Whatever people say in whatever order: an override stays to be reviewed until enough others approve, or somebody rejects."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from interlock.core.clock import iso, parse_time
from interlock.core.policy import Limits, Policy, Quorum
from interlock.core.trust import Role, TrustedKey, TrustRoot
from interlock.registry.approvals import Approval, Predicate
from interlock.release.waiting import unreviewed

START = parse_time("2026-01-01T00:00:00Z")
ROLES: dict[str, tuple[Role, ...]] = {
    "rob": ("reviewer",),
    "rhea": ("reviewer",),
    "olga": ("admin",),
    "ann": ("author",),
}
REVIEWERS = {"rob", "rhea"}
acts = st.one_of(
    st.tuples(st.just("override"), st.sampled_from(["rob", "rhea", "olga"])),
    st.tuples(st.just("approve"), st.sampled_from(["rob", "rhea"])),
    st.tuples(st.sampled_from(["reject", "revoke"]), st.just("rob")),
)


def signed(number: int, act: tuple[str, str]) -> Approval:
    what, by = act
    decision = "approve" if what == "override" else what
    at = iso(START + timedelta(minutes=number))
    override = "now" if what == "override" else None
    said = Predicate(decision, "serve", by, "ann", "r", at, None, "sha256:e", override=override)  # type: ignore[arg-type] # one of them
    return Approval("sha256:p", said, by, False, "m", by, ROLES[by])


@given(history=st.lists(acts, max_size=12), quorum=st.sampled_from([1, 2]))
def test_an_override_is_owed_a_review(history: list[tuple[str, str]], quorum: int) -> None:
    keys = tuple(TrustedKey(name, name, name, "", roles, iso(START)) for name, roles in ROLES.items())
    policy = Policy({"low": Quorum(quorum)}, {"default": Limits(override_hours=1)})
    trust = TrustRoot(1, 1, "p", "team", "", keys, policy)
    sides, since = set[str](), None
    for what, by in history:
        if what == "override" and since is None:
            sides.add(by)
            since = set[str]() if "olga" in sides and sides & REVIEWERS else None
        elif what == "approve" and since is not None:
            since.add(by)
        if what in ("reject", "revoke") or (since is not None and len(since) == quorum):
            sides, since = set(), None
    found = unreviewed([signed(number, act) for number, act in enumerate(history)], trust)
    assert (found is not None) == (since is not None)
