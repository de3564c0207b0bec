"""Approvals: in-toto statements in DSSE envelopes, and the one rule that says whether a package may be served.

The latest valid decision of each scope counts: a `reject` after an `approve` takes it back. `serve` includes `shadow`.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from interlock.core.clock import parse_time
from interlock.core.errors import FourEyes, NotApproved, Tampered
from interlock.core.files import write_new
from interlock.core.ids import uuid7_text
from interlock.core.signing import PrivateKey, seal
from interlock.core.trust import TrustRoot
from interlock.registry.packages import package_hex

APPROVAL_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:interlock:approval:v1"
Scope = Literal["shadow", "serve"]


class Subject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The package that is judged."""

    name: str
    digest: dict[str, str]


class Predicate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The decision."""

    decision: Literal["approve", "reject"]
    scope: Scope
    approver: str
    author: str
    reason: str
    time: str
    expires: str | None
    evaluation: str
    """Digest of the evaluation that was judged."""
    standard: str | None = None
    image: str | None = None
    self_approved: bool = False


class Statement(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"type": "_type", "predicate_type": "predicateType"}
):
    """An in-toto Statement v1."""

    type: str
    subject: tuple[Subject]
    predicate_type: str
    predicate: Predicate


class Approval(msgspec.Struct, frozen=True):
    """A decision whose signature, signer and form are verified."""

    package_digest: str
    predicate: Predicate
    signer: str
    """Name of the key in the trust root."""
    revoked: bool = False
    """The key does not count for that time: an approval is void, a rejection stays one."""


def statement(model: str, package_digest: str, predicate: Predicate) -> Statement:
    """The statement to sign."""
    subject = Subject(model, {"sha256": package_hex(package_digest)})
    return Statement(STATEMENT, (subject,), PREDICATE, predicate)


def store_approval(folder: Path, content: Statement, key: PrivateKey) -> Path:
    """Sign and keep a decision under `folder/<package hex>/<id>.dsse.json`."""
    target = folder / content.subject[0].digest["sha256"] / f"{uuid7_text()}.dsse.json"
    write_new(target, seal(content, APPROVAL_TYPE, key))
    return target


def open_approval(data: bytes, trust: TrustRoot, what: str) -> Approval:
    """Verify one decision: bytes, form, signer's role and validity, four eyes.

    Raises:
        Tampered: altered bytes or a form that is not ours.
        NotApproved: the signer may not sign approvals.
    """
    payload, key = trust.unseal(data, APPROVAL_TYPE, ("reviewer",), what)
    content = _statement(payload, what)
    predicate = content.predicate
    if predicate.approver != key.name:
        raise NotApproved(f"{what} names {predicate.approver} as approver, but is signed by {key.name}")
    revoked = not key.valid_at(parse_time(predicate.time))
    return Approval("sha256:" + content.subject[0].digest["sha256"], predicate, key.name, revoked)


def _statement(payload: Any, what: str) -> Statement:
    try:
        content = msgspec.convert(payload, Statement)
    except msgspec.ValidationError as error:
        raise Tampered(f"{what} is no approval: {error}") from error
    if (content.type, content.predicate_type) != (STATEMENT, PREDICATE) or set(content.subject[0].digest) != {"sha256"}:
        raise Tampered(f"{what} is no approval of this format")
    return content


def check_four_eyes(trust: TrustRoot, author: str, approver: str) -> bool:
    """Whether `approver` signs their own model, which only a solo project allows.

    Raises:
        FourEyes: they do, and this is a team.
    """
    owners = {key.name: key.owner for key in trust.keys}
    own = owners.get(author, author) == owners.get(approver, approver)
    if own and trust.mode == "team":
        raise FourEyes(
            f"{approver} trained this model and may not sign it",
            next="another person with the role reviewer approves it: interlock approve MODEL:V --as NAME --reason R",
        )
    return own


def require_approval(
    decisions: list[Approval], package_digest: str, author: str, scope: Scope, trust: TrustRoot, now: datetime
) -> Approval:
    """The approval that lets this package be served in `scope`, out of verified decisions.

    Raises:
        NotApproved: there is none, it expired, its key was not valid then, or a later decision took it back.
        FourEyes: it is the author's own, in a team.
    """
    mine = [one for one in decisions if one.package_digest == package_digest]
    void = ""
    for one in sorted(mine, key=lambda one: one.predicate.time, reverse=True):
        predicate = one.predicate
        if predicate.decision == "reject":
            raise NotApproved(f"package {package_digest} was rejected by {one.signer}: {predicate.reason}")
        if scope == "serve" and predicate.scope == "shadow":
            continue
        if one.revoked:
            void = f"; that of {one.signer} is void, the key was not valid on {predicate.time}"
            continue
        if predicate.expires is not None and parse_time(predicate.expires) <= now:
            raise NotApproved(f"the approval of package {package_digest} expired on {predicate.expires}")
        check_four_eyes(trust, author, one.signer)
        return one
    raise NotApproved(
        f"package {package_digest} has no approval of the scope {scope}{void}",
        next="a reviewer signs it: interlock approve MODEL:V --as NAME --reason R",
    )


def read_decisions(folder: Path, package_digest: str, trust: TrustRoot) -> list[Approval]:
    """All decisions on a package, verified; one altered file refuses the package, it is never skipped."""
    files = sorted((folder / package_hex(package_digest)).glob("*.dsse.json"))
    return [open_approval(file.read_bytes(), trust, f"approval {file.name}") for file in files]
