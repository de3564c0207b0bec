"""Keys in an ssh-agent: it signs, and the private half never comes here. Ed25519 and ECDSA on P-256 only.

Source: RFC 9987 (SSH Agent Protocol), RFC 5656 and RFC 8709 for the forms of keys and signatures.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from interlock.core.errors import Misconfigured, Refused
from interlock.core.signing import PublicKey

LIST, LISTED, SIGN, SIGNED = 11, 12, 13, 14
ED25519, P256 = b"ssh-ed25519", b"ecdsa-sha2-nistp256"
TIMEOUT = 60.0
"""An agent may ask its person first (`ssh-add -c`)."""
LARGEST = 1 << 20


class AgentKey(msgspec.Struct, frozen=True):
    """A key that an agent holds, with the name that the agent knows it by."""

    agent: str
    blob: bytes
    comment: str

    def public_key(self) -> PublicKey:
        """Its public half."""
        kind, *rest = _strings(self.blob)
        if kind == ED25519:
            return ed25519.Ed25519PublicKey.from_public_bytes(rest[0])
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), rest[1])

    def sign(self, message: bytes, /) -> bytes:
        """The agent's signature, as `cryptography` writes it.

        Raises:
            Refused: the agent does not sign: it is locked, or its person said no.
        """
        kind, body = _ask(self.agent, struct.pack(">B", SIGN) + _string(self.blob) + _string(message) + bytes(4))
        if kind != SIGNED:
            raise Refused(f"the ssh-agent does not sign with {self.comment}", next="unlock it: ssh-add -X")
        algorithm, signature = _strings(next(_strings(body)))
        if algorithm == ED25519:
            return signature
        r, s = (int.from_bytes(number) for number in _strings(signature))
        return encode_dss_signature(r, s)


def keys_of(agent: str) -> list[AgentKey]:
    """The keys of the agent at this socket that can be used here.

    Raises:
        Misconfigured: no agent answers there.
    """
    kind, body = _ask(agent, struct.pack(">B", LIST))
    if kind != LISTED:
        raise Misconfigured(f"the ssh-agent at {agent} does not list its keys")
    fields = list(_strings(body[4:]))
    pairs = zip(fields[::2], fields[1::2], strict=True)
    found = [AgentKey(agent, blob, comment.decode(errors="replace")) for blob, comment in pairs]
    return [key for key in found if next(_strings(key.blob)) in (ED25519, P256)]


def _ask(agent: str, question: bytes) -> tuple[int, bytes]:
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(TIMEOUT)
            line.connect(agent)
            line.sendall(_string(question))
            (length,) = struct.unpack(">I", _read(line, 4))
            if not 1 <= length <= LARGEST:
                raise OSError(f"it answers with {length} bytes")
            answer = _read(line, length)
    except OSError as error:
        raise Misconfigured(f"no ssh-agent at {agent}: {error}", next="start one: eval $(ssh-agent)") from error
    return answer[0], answer[1:]


def _read(line: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = line.recv(count - len(data))
        if not more:
            raise OSError("it hung up")
        data += more
    return data


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _strings(data: bytes) -> Iterator[bytes]:
    """The length-prefixed strings that follow each other."""
    while data:
        (length,) = struct.unpack(">I", data[:4])
        yield data[4 : 4 + length]
        data = data[4 + length :]
