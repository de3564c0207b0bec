"""Keys and DSSE envelopes, strict on both sides: whoever reads re-encodes, and refuses any difference.

A signed file is the canonical JSON of a DSSE v1.0 envelope with one signature (trust root and routes may have several, in
the order of their key ids); `keyid` is the SHA-256 of the verifying key's SubjectPublicKeyInfo; base64 is standard, padded,
without white space. So one altered bit anywhere is refused.
Source: https://github.com/secure-systems-lab/dsse (protocol.md).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from interlock.core.errors import Misconfigured, Tampered
from interlock.core.hashing import canonical, digest, parse_canonical


class HeldKey(Protocol):
    """A private key that somebody else holds and signs with, as an ssh-agent does."""

    def public_key(self) -> PublicKey:
        """Its public half."""
        ...

    def sign(self, message: bytes, /) -> bytes:
        """The signature as `cryptography` writes it: 64 bytes for Ed25519, DER for ECDSA with SHA-256."""
        ...


FileKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PrivateKey = FileKey | HeldKey
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
Algorithm = Literal["ecdsa-p256", "ed25519"]


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One signature of an envelope."""

    keyid: str
    sig: str


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A DSSE envelope as it lies on disk."""

    payload: str
    payloadType: str
    signatures: tuple[Signature, ...]


def generate(algorithm: Algorithm = "ecdsa-p256") -> FileKey:
    """A new private key."""
    return (
        ec.generate_private_key(ec.SECP256R1()) if algorithm == "ecdsa-p256" else ed25519.Ed25519PrivateKey.generate()
    )


def private_pem(key: FileKey, passphrase: str = "") -> bytes:
    """PKCS#8 PEM, encrypted when there is a passphrase."""
    encryption: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    )
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def load_private(pem: bytes, passphrase: str = "") -> FileKey:
    """Read a private key.

    Raises:
        Misconfigured: no key, wrong passphrase, or a kind that is not used here.
    """
    try:
        key = serialization.load_pem_private_key(pem, passphrase.encode() if passphrase else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Misconfigured(f"the private key cannot be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise Misconfigured("the private key is neither ECDSA P-256 nor Ed25519")
    return key


def spki(key: PublicKey) -> bytes:
    """The DER SubjectPublicKeyInfo."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def key_id(key: PublicKey) -> str:
    """`sha256:` digest of the SPKI: the key's identity and the root's fingerprint."""
    return digest(spki(key))


def public_text(key: PublicKey) -> str:
    """The SPKI in strict base64: the form in the trust root and in `NAME.pub`."""
    return base64.b64encode(spki(key)).decode()


def load_public(text: str) -> PublicKey:
    """Read `public_text`.

    Raises:
        Misconfigured: no key, or a kind that is not used here.
    """
    try:
        key = serialization.load_der_public_key(unbase64(text.strip(), "public key"))
    except (ValueError, Tampered, UnsupportedAlgorithm) as error:
        raise Misconfigured(f"the public key cannot be read: {error}") from error
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise Misconfigured("the public key is neither ECDSA P-256 nor Ed25519")


def seal(payload: Any, payload_type: str, *keys: PrivateKey) -> bytes:
    """Sign the canonical JSON of `payload`; the bytes of the envelope."""
    body = canonical(payload)
    return _sealed(body, payload_type, [_signature(_pae(payload_type, body), key) for key in keys])


def add_signature(data: bytes, key: PrivateKey, what: str) -> bytes:
    """The envelope with the signature of one more key, or the same where it has signed already."""
    envelope = _envelope(data, what)
    body, keyid = unbase64(envelope.payload, what), key_id(key.public_key())
    others = [one for one in envelope.signatures if one.keyid != keyid]
    added = _signature(_pae(envelope.payloadType, body), key)
    return _sealed(body, envelope.payloadType, [*others, added])


def signers_of(data: bytes, what: str) -> list[str]:
    """The key ids that an envelope claims; nothing is verified yet."""
    return [one.keyid for one in _envelope(data, what).signatures]


def peek(data: bytes, what: str) -> Any:
    """The payload as plain JSON values, to find out who has to have signed it; nothing is verified yet."""
    return parse_canonical(unbase64(_envelope(data, what).payload, what), what)


def unseal_by(
    data: bytes, payload_type: str, keys: Mapping[str, PublicKey], what: str
) -> tuple[Any, frozenset[str]]:  # fmt: skip
    """Verify an envelope that only `keys` (by id) may have signed; its payload and the ids of those that did.

    Raises:
        Tampered: any byte differs from what was signed and written, or another key signed too.
    """
    envelope = _envelope(data, what)
    if envelope.payloadType != payload_type:
        raise Tampered(f"{what} is of type {envelope.payloadType}, not {payload_type}")
    body = unbase64(envelope.payload, what)
    message = _pae(payload_type, body)
    for signature in envelope.signatures:
        key = keys.get(signature.keyid)
        if key is None:
            raise Tampered(f"{what} is signed by key {signature.keyid}, which may not: it is none of {', '.join(keys)}")
        raw = unbase64(signature.sig, what)
        try:
            if isinstance(key, ed25519.Ed25519PublicKey):
                key.verify(raw, message)
            else:
                key.verify(raw, message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise Tampered(f"the signature of {what} does not match its content") from None
    return parse_canonical(body, what), frozenset(signature.keyid for signature in envelope.signatures)


def _signature(message: bytes, key: PrivateKey) -> Signature:
    raw = (
        key.sign(message, ec.ECDSA(hashes.SHA256()))
        if isinstance(key, ec.EllipticCurvePrivateKey)
        else key.sign(message)
    )
    return Signature(keyid=key_id(key.public_key()), sig=base64.b64encode(raw).decode())


def _sealed(body: bytes, payload_type: str, signatures: Iterable[Signature]) -> bytes:
    ordered = tuple(sorted(signatures, key=lambda one: one.keyid))
    return canonical(Envelope(base64.b64encode(body).decode(), payload_type, ordered))


def _envelope(data: bytes, what: str) -> Envelope:
    try:
        envelope = msgspec.convert(parse_canonical(data, what), Envelope)
    except msgspec.ValidationError as error:
        raise Tampered(f"{what} is no DSSE envelope: {error}") from error
    ids = [signature.keyid for signature in envelope.signatures]
    if not ids or ids != sorted(set(ids)):
        raise Tampered(f"{what} has no signatures, or not each once in the order of the key ids")
    return envelope


def _pae(payload_type: str, body: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body)


def unbase64(text: str, what: str) -> bytes:
    """Strict, canonical base64.

    Raises:
        Tampered: anything else.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Tampered(f"{what} holds broken base64") from error
    if base64.b64encode(data).decode() != text:
        raise Tampered(f"{what} holds base64 that is not in its canonical form")
    return data
