"""Whether bytes are a pickle, told by what they are and not by their name. Nothing is loaded: loading one runs its code."""

from __future__ import annotations

import contextlib
import io
import pickletools
import zipfile

PROTOCOLS = tuple(b"\x80" + bytes([number]) for number in range(2, 6))
COMPRESSED = (
    b"\x1f\x8b",
    b"\x78\x01",
    b"\x78\x5e",
    b"\x78\x9c",
    b"\x78\xda",
    b"ZF",
    b"BZh",
    b"\xfd7zXZ",
    b"\x5d\x00\x00",
    b"\x04\x22\x4d\x18",
)
"""How gzip, zlib, joblib's old zlib, bzip2, xz, lzma and lz4 begin: joblib's forms. No model format taken here is one of them."""


def is_pickle(data: bytes) -> bool:
    """Whether this is a pickle, a joblib file, or an archive with a pickle inside, as torch writes it."""
    if data.startswith(PROTOCOLS + COMPRESSED):
        return True
    if data.startswith(b"PK"):
        with (
            contextlib.suppress(zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError),
            zipfile.ZipFile(io.BytesIO(data)) as archive,
        ):
            return any(_is_pickled_member(archive, one) for one in archive.infolist())
    return data.endswith(b".") and _is_program(data)


def _is_pickled_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    if member.filename.endswith((".pkl", ".pickle", ".joblib")):
        return True
    with archive.open(member) as file:
        return file.read(2) in PROTOCOLS


def _is_program(data: bytes) -> bool:
    """Whether it is a text pickle (protocol 0 or 1): operations to the last byte, which stops."""
    try:
        *_, (_, _, at) = pickletools.genops(data)
    except Exception:  # noqa: BLE001 (bytes of any kind make it raise anything; then they are no pickle)
        return False
    return at == len(data) - 1
