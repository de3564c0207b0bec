"""Which arm a unit belongs to: sticky, minimal when shares move, and recomputable by anybody from the route document.

Bucket = fnv1a32(str(fnv1a32(salt + unit))) % 10000 over UTF-8, GrowthBook's hash version 2. Each arm owns a list of half-open
ranges over 0..9999 in the order in which it got them. Raising an arm cuts from the champion's highest range, lowering gives
back what was added last; other arms never move.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from interlock.core.errors import Usage

BUCKETS = 10_000
Ranges = tuple[tuple[int, int], ...]


def fnv1a32(text: str, start: int = 0x811C9DC5) -> int:
    """Fowler-Noll-Vo 1a, 32 bits, of the UTF-8 bytes; `start`: the hash of what comes before them."""
    value = start
    for byte in text.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def bucket(salt: str, unit: str) -> int:
    """The unit's bucket, 0..9999."""
    return salted_bucket(fnv1a32(salt), unit)


def salted_bucket(salt_hash: int, unit: str) -> int:
    """As `bucket`, for a salt that was hashed before."""
    return fnv1a32(str(fnv1a32(unit, salt_hash))) % BUCKETS


def owner_table(arms: Mapping[str, Ranges]) -> list[str]:
    """The arm of every bucket, for a constant-time look-up.

    Raises:
        ValueError: the ranges overlap or leave a bucket without an arm.
    """
    table: list[str | None] = [None] * BUCKETS
    for name, ranges in arms.items():
        for low, high in ranges:
            if not 0 <= low < high <= BUCKETS:
                raise ValueError(f"arm {name}: [{low}, {high}) is no range of buckets")
            for i in range(low, high):
                if table[i] is not None:
                    raise ValueError(f"bucket {i} belongs to {table[i]} and to {name}")
                table[i] = name
    if None in table:
        raise ValueError(f"bucket {table.index(None)} belongs to no arm")
    return [name for name in table if name is not None]


def share(ranges: Ranges) -> int:
    """How many buckets the ranges hold."""
    return sum(high - low for low, high in ranges)


def move(arms: Mapping[str, Ranges], target: Mapping[str, int], champion: str = "champion") -> dict[str, Ranges]:
    """Give every arm the number of buckets in `target` with the fewest units changing arms.

    `target` maps every arm, the champion too, to its buckets; they add up to 10000. Arms that shrink give back first.

    Raises:
        Usage: `target` does not add up, or names an arm that is not there.
    """
    if set(target) != set(arms) or sum(target.values()) != BUCKETS or min(target.values()) < 0:
        wanted = ", ".join(f"{name}={count / 100:g}" for name, count in target.items())
        raise Usage(f"the shares {wanted} must name every arm ({', '.join(arms)}) and add up to 100")
    now = dict(arms)
    others = [name for name in arms if name != champion]
    for name in others:
        if (excess := share(now[name]) - target[name]) > 0:
            now[name], freed = _take_last(now[name], excess)
            now[champion] = _merge(now[champion] + freed)
    for name in others:
        if (lack := target[name] - share(now[name])) > 0:
            now[champion], cut = _take_highest(now[champion], lack)
            now[name] = now[name] + cut
    return now


def _take_last(ranges: Ranges, count: int) -> tuple[Ranges, Ranges]:
    """Give back what was added last; of a range its low end, which is where the champion's next cut would be."""
    kept, taken = list(ranges), []
    while count:
        low, high = kept.pop()
        cut = min(high, low + count)
        if cut < high:
            kept.append((cut, high))
        taken.append((low, cut))
        count -= cut - low
    return tuple(kept), tuple(taken)


def _take_highest(ranges: Ranges, count: int) -> tuple[Ranges, Ranges]:
    """Cut from the high end of the highest range downwards."""
    kept, taken = sorted(ranges), []
    while count:
        low, high = kept.pop()
        cut = max(low, high - count)
        if cut > low:
            kept.append((low, cut))
        taken.append((cut, high))
        count -= high - cut
    return tuple(kept), tuple(taken)


def _merge(ranges: Sequence[tuple[int, int]]) -> Ranges:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and merged[-1][1] == low:
            merged[-1] = (merged[-1][0], high)
        else:
            merged.append((low, high))
    return tuple(merged)
