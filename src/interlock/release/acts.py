"""What people signed, held against the audit trail: each act of the one must be told by the other.

A chain of hashes shows that something in it was changed, unless somebody who may write to it makes it anew from there on. Nobody
can make the signed files anew, so this finds what is missing or told otherwise, as far as it is about signed acts.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

from interlock.core.hashing import digest_file
from interlock.core.project import Project
from interlock.core.trust import TrustRoot
from interlock.registry.approvals import open_approval
from interlock.registry.routes import RouteDocument, RouteStore
from interlock.registry.tokens import FILE, read_tokens
from interlock.release import audit
from interlock.release.arms import summary
from interlock.release.audit import Entry
from interlock.release.proposals import SIGN
from interlock.release.users import trust_of
from interlock.store.database import Database

TRUST, TOKENS = "a revision of trust.json", "a revision of the API keys"
TRUST_ACTIONS = ("trust", "revoke key", "rotate key", "policy")
SETTLE_SECONDS = 0.5
LOOK = "look at what is signed; where the database was away, or somebody was killed: interlock audit mend --reason WHY"
MEND = "mend"
"""An entry that tells of signed acts after the event: whoever did them was killed before they could."""


def verify(project: Project) -> int:
    """Check the chain, and every signed decision, route, API key list and trust revision against it; the number of entries.

    Raises:
        Tampered: names everything that does not fit; also a signed file that was altered.
    """
    database = Database(project.database)
    try:
        count = audit.verify(database)
        found = differences(project, database)
        if found:  # somebody may be between the one and the other
            time.sleep(SETTLE_SECONDS)
            found = differences(project, database)
        audit.require(found, LOOK)
    finally:
        database.close()
    return count


def differences(project: Project, database: Database) -> list[str]:
    """What only one of the two knows, or the two tell otherwise, a sentence each."""
    missing, others = _compare(project, database)
    return [f"{act} is signed, and the trail has no entry of it" for act in missing] + others


def mend(project: Project, actor: str, reason: str) -> list[str]:
    """Write an entry that tells of the signed acts that the trail misses; which they are."""
    database = Database(project.database)
    missing, _ = _compare(project, database)
    if missing:
        audit.append(database, actor, MEND, project.root.name, None, {"acts": missing}, reason)
    database.close()
    return missing


def _compare(project: Project, database: Database) -> tuple[list[str], list[str]]:
    """Signed acts that the trail misses, and sentences about all else that does not fit."""
    trust, routes = trust_of(project), RouteStore(project.routes)
    trail, others = audit.entries(database), list[str]()
    documents: dict[str, tuple[RouteDocument, list[str]]] = {}
    for endpoint in routes.endpoints():
        for revision in range(1, routes.current(endpoint) + 1):
            name, path = f"{endpoint} revision {revision}", routes.path(endpoint, revision)
            if not path.exists():
                others.append(f"{name} was removed")
            else:
                route = routes.read(endpoint, trust, revision, past=True)
                documents[name] = route, routes.signers(route, trust)
                before = routes.path(endpoint, revision - 1)
                if before.exists() and route.previous != digest_file(before):
                    others.append(f"{endpoint} revision {revision - 1} was replaced: the one after it follows another")
    there = Counter([*documents, *_decisions(project, trust)])
    there[TRUST] = trust.revision - 1
    there[TOKENS] = read_tokens(project.state / FILE, trust, past=True).revision
    told = Counter(act for entry in trail for act in told_by(entry))
    others += [f"the trail tells of {act}, which is not there" for act in (told - there).elements()]
    for entry in trail:
        for act in told_by(entry):
            if act in documents and entry.action != MEND and not _agree(entry, *documents[act]):
                by = ", ".join(documents[act][1])
                others.append(f"audit entry {entry.seq} tells of {act} otherwise than {by} signed it")
    return list((there - told).elements()), others


def told_by(entry: Entry) -> list[str]:
    """The signed acts that an entry tells of."""
    _, after = entry.values
    if entry.action == MEND:
        return list(after["acts"])
    if entry.action in TRUST_ACTIONS or (entry.action == "sign root" and after["in_force"]):
        return [TRUST]
    if entry.action in ("token create", "token revoke"):
        return [TOKENS]
    if entry.action != "refused" and isinstance(after, dict):
        if {"revision", "arms"} <= after.keys():
            return [f"{entry.subject} revision {after['revision']}"]
        if {"decision", "scope", "package", "evaluation"} <= after.keys():
            return [
                _said(
                    after["decision"], after["scope"], after["package"], after["evaluation"], entry.actor, entry.reason
                )
            ]
    return []


def _said(decision: str, scope: str, package: str, evaluation: str, by: str, reason: str) -> str:
    judged = f" under {evaluation}" if evaluation else ""
    return f"the word of {by} on package {package}{judged} ({decision}, {scope}: {reason})"


def _decisions(project: Project, trust: TrustRoot) -> Iterator[str]:
    for file in sorted(project.approvals.glob("*/*.dsse.json")):
        one = open_approval(file.read_bytes(), trust, f"approval {file.name}")
        said = one.predicate
        yield _said(said.decision, said.scope, one.package_digest, said.evaluation, one.signer, said.reason)


def _agree(entry: Entry, route: RouteDocument, signers: list[str]) -> bool:
    """Whether an entry tells of a route as it is: by its author, or by the last of those who signed it."""
    _, after = entry.values
    told = {name: after.get(name) for name in ("risk", "diff", "override")}
    signed = {**dict.fromkeys(told), **summary(route)}
    signed = {name: value for name, value in signed.items() if name in after or name in told}
    last = entry.actor in signers and after["signed_by"] == signers if entry.action == SIGN else False
    by = last if len(signers) > 1 else entry.actor == route.author
    return by and entry.reason == route.reason and signed.items() <= (after | told).items()
