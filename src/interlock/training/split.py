"""Which rows train, which validate, which are held out: the same rows always land in the same part.

`time` parts by event time, and equal times never straddle a boundary. `random` and `group` part by a hash of the row's
id or its group, so a row stays where it is while the table grows.
"""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np
from numpy.typing import NDArray

from interlock.core.clock import from_us, iso
from interlock.core.errors import InvalidData
from interlock.core.hashing import digest
from interlock.core.settings import SplitSettings
from interlock.model.columns import Array
from interlock.model.manifest import SplitRecord

PARTS = ("train", "validation", "test")
Rows = NDArray[np.int64]


class Split(msgspec.Struct, frozen=True):
    """Row numbers of each part, rising, and the record of how they came about."""

    parts: dict[str, Rows]
    record: SplitRecord


def settings_of(record: SplitRecord) -> SplitSettings:
    """What makes the same split again."""
    return SplitSettings(record.kind, record.validation, record.test, record.group, record.seed)


def split(settings: SplitSettings, ids: Array, times: Array, groups: Array | None) -> Split:
    """Part rows by their ids (texts), event times (microseconds) and groups (texts; needed for `kind = "group"`).

    Raises:
        InvalidData: a part would be empty.
    """
    boundaries: dict[str, str] = {}
    if settings.kind == "time":
        number, boundaries = _by_time(settings, times)
    elif settings.kind == "group" and groups is not None:
        number = _by_hash(settings, groups)
    elif settings.kind == "random":
        number = _by_hash(settings, ids)
    else:
        raise InvalidData("the split by group names no column", next='say group = "COLUMN" in [split]')
    parts = {name: np.flatnonzero(number == at) for at, name in enumerate(PARTS)}
    empty = [name for name, rows in parts.items() if not len(rows)]
    if empty:
        raise InvalidData(
            f"the split by {settings.kind} leaves no row for {' and '.join(empty)} of {len(ids)} rows",
            next="more rows, other fractions, or another kind in [split]",
        )
    record = SplitRecord(
        kind=settings.kind,
        seed=settings.seed,
        digest=digest(msgspec.json.encode({name: sorted(ids[rows].tolist()) for name, rows in parts.items()})),
        rows={name: len(rows) for name, rows in parts.items()},
        boundaries=boundaries,
        validation=settings.validation,
        test=settings.test,
        group=settings.group,
    )
    return Split(parts, record)


def _by_time(settings: SplitSettings, times: Array) -> tuple[Array, dict[str, str]]:
    ordered = np.sort(times)
    n = len(ordered)
    if not n:
        return np.zeros(0), {}
    test = ordered[min(n - round(n * settings.test), n - 1)]
    validation = ordered[min(n - round(n * (settings.test + settings.validation)), n - 1)]
    earlier = ordered[ordered < test]
    if len(earlier):  # where one instant holds both boundaries, the instant before it validates
        validation = min(validation, earlier[-1])
    number = (times >= validation).astype(np.int64) + (times >= test)
    return number, {"validation": iso(from_us(int(validation))), "test": iso(from_us(int(test)))}


def _by_hash(settings: SplitSettings, keys: Array) -> Array:
    """Each key's place in [0, 1) decides: the lowest are held out, the next validate."""
    names, codes = np.unique(keys.astype(str), return_inverse=True)
    hashes = [hashlib.sha256(f"{settings.seed}\0{name}".encode()).digest()[:8] for name in names.tolist()]
    place = np.array([int.from_bytes(one) / 2**64 for one in hashes])
    number = (place >= settings.test).astype(np.int64) + (place >= settings.test + settings.validation)
    return (2 - number)[codes]
