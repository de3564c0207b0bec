"""Canonical JSON (RFC 8785) and SHA-256: the two together give everything its identity."""

from __future__ import annotations

import hashlib
import json
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
        value = json.loads(data, parse_int=_number)
        again = rfc8785.dumps(value)
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, not canonical, or nested without end
        raise Tampered(f"{what} is not canonical JSON: {error}") from error
    if again != data:
        raise Tampered(f"{what} is not in canonical form: it was altered after it was written")
    return value


def _number(text: str) -> int | float:
    """RFC 8785 writes the float 1e16 without a point; beyond 2^53 every number was a float."""
    return int(text) if len(text) < 16 or abs(int(text)) < 2**53 else float(text)


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
