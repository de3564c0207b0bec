"""Canonical JSON (RFC 8785) and SHA-256: the two together give everything its identity."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import rfc8785

from interlock.core.errors import Tampered


def canonical(value: Any) -> bytes:
    """The RFC 8785 bytes of a JSON value or a msgspec struct."""
    return rfc8785.dumps(msgspec.to_builtins(value))


def parse_canonical(data: bytes, what: str) -> Any:
    """Decode JSON that must be in canonical form.

    Raises:
        Tampered: the bytes are no JSON, or not the canonical form of what they say.
    """
    try:
        value = msgspec.json.decode(data)
        again = rfc8785.dumps(value)
    except (msgspec.DecodeError, rfc8785.CanonicalizationError) as error:
        raise Tampered(f"{what} is not canonical JSON: {error}") from error
    if again != data:
        raise Tampered(f"{what} is not in canonical form: it was altered after it was written")
    return value


def sha256_hex(data: bytes) -> str:
    """64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def digest(data: bytes) -> str:
    """`sha256:` and 64 hex digits."""
    return f"sha256:{sha256_hex(data)}"


def digest_file(path: Path) -> str:
    """`sha256:` digest of a file's bytes, read in slices."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
