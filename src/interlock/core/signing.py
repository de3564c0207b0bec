"""Keys and DSSE envelopes, strict on both sides: whoever reads re-encodes, and refuses any difference.

A signed file is the canonical JSON of a DSSE v1.0 envelope with one signature; `keyid` is the SHA-256 of the verifying key's
SubjectPublicKeyInfo; base64 is standard, padded, without white space. So one altered bit anywhere is refused.
Source: https://github.com/secure-systems-lab/dsse (protocol.md).
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Literal

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from interlock.core.errors import Misconfigured, Tampered
from interlock.core.hashing import canonical, digest, parse_canonical

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
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
    signatures: tuple[Signature]


def generate(algorithm: Algorithm = "ecdsa-p256") -> PrivateKey:
    """A new private key."""
    return (
        ec.generate_private_key(ec.SECP256R1()) if algorithm == "ecdsa-p256" else ed25519.Ed25519PrivateKey.generate()
    )


def private_pem(key: PrivateKey, passphrase: str = "") -> bytes:
    """PKCS#8 PEM, encrypted when there is a passphrase."""
    encryption: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    )
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def load_private(pem: bytes, passphrase: str = "") -> PrivateKey:
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


def seal(payload: Any, payload_type: str, key: PrivateKey) -> bytes:
    """Sign the canonical JSON of `payload`; the bytes of the envelope."""
    body = canonical(payload)
    message = _pae(payload_type, body)
    raw = (
        key.sign(message)
        if isinstance(key, ed25519.Ed25519PrivateKey)
        else key.sign(message, ec.ECDSA(hashes.SHA256()))
    )
    signature = Signature(keyid=key_id(key.public_key()), sig=base64.b64encode(raw).decode())
    return canonical(
        Envelope(payload=base64.b64encode(body).decode(), payloadType=payload_type, signatures=(signature,))
    )


def signer_of(data: bytes, what: str) -> str:
    """The key id that an envelope claims; nothing is verified yet."""
    return _envelope(data, what).signatures[0].keyid


def unseal(data: bytes, payload_type: str, key: PublicKey, what: str) -> Any:
    """Verify the envelope with `key` and return its payload as plain JSON values.

    Raises:
        Tampered: any byte differs from what was signed and written; `what` names the document.
    """
    envelope = _envelope(data, what)
    signature = envelope.signatures[0]
    if envelope.payloadType != payload_type:
        raise Tampered(f"{what} is of type {envelope.payloadType}, not {payload_type}")
    if signature.keyid != key_id(key):
        raise Tampered(f"{what} is not signed by key {key_id(key)}")
    body = unbase64(envelope.payload, what)
    message, raw = _pae(payload_type, body), unbase64(signature.sig, what)
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(raw, message)
        else:
            key.verify(raw, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise Tampered(f"the signature of {what} does not match its content") from None
    return parse_canonical(body, what)


def _envelope(data: bytes, what: str) -> Envelope:
    try:
        return msgspec.convert(parse_canonical(data, what), Envelope)
    except msgspec.ValidationError as error:
        raise Tampered(f"{what} is no DSSE envelope: {error}") from error


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
