"""One altered bit anywhere in a signed file is refused; an untouched one comes back as it was signed."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.core import signing
from interlock.core.errors import InterlockError, Tampered
from interlock.core.hashing import canonical
from interlock.core.trust import TrustedKey, TrustRoot, open_trust, seal_trust
from interlock.registry.approvals import APPROVAL_TYPE, Predicate, open_approval, statement
from interlock.registry.routes import ROUTE_TYPE, Arm, ExperimentRef, Parameters, RouteDocument, open_route

TIME = "2026-01-01T00:00:00.000000Z"
DIGEST = "sha256:" + "ab" * 32
ALGORITHMS: tuple[signing.Algorithm, ...] = ("ecdsa-p256", "ed25519")
Document = tuple[bytes, Callable[[bytes], object]]


def documents(algorithm: signing.Algorithm) -> dict[str, Document]:
    """A trust root, an approval and a route document, each with what opens it."""
    root, person = signing.generate(algorithm), signing.generate(algorithm)
    public = person.public_key()
    keyid, roles = signing.key_id(public), ("reviewer", "operator")
    entry = TrustedKey("rita", "rita", keyid, signing.public_text(public), roles, TIME)  # type: ignore[arg-type] # widened
    trust = TrustRoot(1, 1, "flights", "team", signing.public_text(root.public_key()), (entry,))
    fingerprint = signing.key_id(root.public_key())
    said = statement("m", DIGEST, Predicate("approve", "serve", "rita", "ann", "fine", TIME, None, DIGEST))
    arm = Arm("champion", "m", 1, DIGEST, "1.0.0-1.abababab", ("abababababab-1",), ((0, 10_000),))
    route = RouteDocument(1, "m", 1, (arm,), ExperimentRef("salt"), Parameters(), "rita", "go", TIME, None)
    return {
        "trust.json": (seal_trust(trust, root), lambda data: open_trust(data, fingerprint)),
        "approval": (signing.seal(said, APPROVAL_TYPE, person), lambda data: open_approval(data, trust, "approval")),
        "route": (signing.seal(route, ROUTE_TYPE, person), lambda data: open_route(data, trust, "route")),
    }


DOCUMENTS = [
    pytest.param(*document, id=f"{name} {algorithm}")
    for algorithm in ALGORITHMS
    for name, document in documents(algorithm).items()
]


@pytest.mark.parametrize(("data", "opened"), DOCUMENTS)
def test_an_untouched_document_opens(data: bytes, opened: Callable[[bytes], object]) -> None:
    assert opened(data) == opened(data)


@pytest.mark.parametrize(("data", "opened"), DOCUMENTS)
def test_one_altered_bit_anywhere_is_refused(
    data: bytes, opened: Callable[[bytes], object], request: pytest.FixtureRequest
) -> None:
    """Every bit of the file with the default algorithm; every seventh, so one in every byte, with the other."""
    for place in range(0, len(data) * 8, 7 if "ed25519" in request.node.name else 1):
        altered = bytearray(data)
        altered[place // 8] ^= 1 << place % 8
        with pytest.raises(InterlockError) as caught:
            opened(bytes(altered))
        assert caught.value.code in ("tampered", "not_approved"), f"bit {place}: {caught.value}"


@pytest.mark.parametrize(("data", "opened"), DOCUMENTS)
def test_another_form_of_the_same_content_is_refused(data: bytes, opened: Callable[[bytes], object]) -> None:
    value = msgspec.json.decode(data)
    forms = [
        data + b"\n",
        data[:-1],
        msgspec.json.format(data, indent=1),
        canonical(value | {"more": 1}),
        canonical(value | {"signatures": value["signatures"] * 2}),
        canonical(value | {"payload": base64.urlsafe_b64encode(base64.b64decode(value["payload"]) + b" ").decode()}),
        canonical(value | {"payload": value["payload"] + "\n"}),
        b"",
    ]
    for form in forms:
        with pytest.raises(Tampered):
            opened(form)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(payload=json_values)
def test_what_is_sealed_comes_back(algorithm: signing.Algorithm, payload: object) -> None:
    key = signing.generate(algorithm)
    data = signing.seal(payload, "text/x", key)
    mine = {signing.key_id(key.public_key()): key.public_key()}
    assert signing.unseal_by(data, "text/x", mine, "it") == (payload, frozenset(mine))
    assert signing.signers_of(data, "it") == list(mine)
    for kind, other in (("text/y", key.public_key()), ("text/x", signing.generate(algorithm).public_key())):
        with pytest.raises(Tampered):
            signing.unseal_by(data, kind, dict.fromkeys(mine, other), "it")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(passphrase=st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20))
def test_keys_survive_their_files(algorithm: signing.Algorithm, passphrase: str) -> None:
    key = signing.generate(algorithm)
    again = signing.load_private(signing.private_pem(key, passphrase), passphrase)
    assert signing.key_id(again.public_key()) == signing.key_id(key.public_key())
    assert signing.key_id(signing.load_public(signing.public_text(key.public_key()))) == signing.key_id(
        key.public_key()
    )


def test_trust_of_another_root_is_refused(tmp_path: Path) -> None:
    data, _ = documents("ecdsa-p256")["trust.json"]
    with pytest.raises(Tampered, match="not signed by the root key"):
        open_trust(data, "sha256:" + "0" * 64)
