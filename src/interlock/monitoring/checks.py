"""What each kind of monitor counts in a window, against which reference, and the number that comes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby

from msgspec import Struct

from interlock.core.clock import iso
from interlock.core.errors import Misconfigured
from interlock.core.settings import MonitorSettings, Settings
from interlock.model import profile as profiles
from interlock.model.manifest import Manifest
from interlock.model.package import verify
from interlock.model.profile import Numeric, Profile, Values
from interlock.model.signature import Signature
from interlock.monitoring.counts import Log, quoted
from interlock.monitoring.drift import Check, Verdict, class_absent, class_surge, psi, volume
from interlock.monitoring.windows import Window, end_of, like
from interlock.registry.packages import PackageStore
from interlock.warehouse import skew
from interlock.warehouse.port import Warehouse

MAX_EMPTY = 400
"""Windows in a row without any request that are judged; whoever was not told by then will not be told by more."""


class Finding(Struct, frozen=True):
    """One check of one window, of an input or a class where the kind has them; `counts`: rows a bin it was made of."""

    window: Window
    subject: str
    check: Check
    counts: list[int]


class Reference(Struct, frozen=True):
    """What a version was trained on."""

    signature: Signature
    profile: Profile


def compare(
    settings: Settings,
    monitor: MonitorSettings,
    warehouse: Warehouse,
    endpoint: str,
    windows: Sequence[Window],
    packages: PackageStore,
) -> Iterator[Finding]:
    """Drift, score, class or skew of answered windows against the version that answered most of their rows."""
    answered = sorted((one for one in windows if one.version is not None), key=lambda one: one.package_digest)
    for digest, group in groupby(answered, key=lambda one: one.package_digest):
        same = list(group)
        package = verify(packages.find(digest), digest)
        if monitor.kind == "skew":
            yield from _skew(settings, monitor, warehouse, endpoint, same, package.manifest)
            continue
        reference = Reference(package.manifest.signature, profiles.decode(package.files[profiles.FILE]))
        log = Log(warehouse, endpoint, monitor.window, same)
        match monitor.kind:
            case "drift":
                yield from _drift(monitor, log, same, reference)
            case "score":
                yield from _score(monitor, log, same, reference)
            case _:
                yield from _classes(log, same, reference)


def _drift(monitor: MonitorSettings, log: Log, windows: list[Window], reference: Reference) -> Iterator[Finding]:
    """PSI of every raw input: rows of all versions, for inputs do not depend on who answers."""
    known = reference.profile.inputs
    strangers = [name for name in monitor.inputs if name not in known]
    if strangers:
        raise Misconfigured(
            f"[[monitors]] names the input {strangers[0]}, which the training profile has not",
            next=f"name some of: {', '.join(known)}",
        )
    for name in monitor.inputs or known:
        yield from _psi(monitor, log, windows, name, quoted(f"in_{name}"), known[name], None)


def _score(monitor: MonitorSettings, log: Log, windows: list[Window], reference: Reference) -> Iterator[Finding]:
    """PSI of the numbers of the version itself, against those of its held-out rows."""
    for at, (name, numeric) in enumerate(reference.profile.scores.items(), 1):
        column, subject = {
            "binary": ("out_score", ""),
            "regression": ("out_value", ""),
            "multiclass": (f"out_probabilities[{at}]", name),
        }[reference.signature.task]
        yield from _psi(monitor, log, windows, subject, column, numeric, windows[0].version)


def _psi(
    monitor: MonitorSettings,
    log: Log,
    windows: list[Window],
    subject: str,
    column: str,
    reference: Numeric | Values,
    version: int | None,
) -> Iterator[Finding]:
    known = list(reference.counts) if isinstance(reference, Numeric) else [*reference.counts.values(), reference.other]
    expected = [*known, reference.missing]
    for window, counts in zip(windows, log.bins(column, reference, version).values(), strict=True):
        yield Finding(window, subject, psi(expected, counts, monitor.limit, monitor.min_n), counts)


def _classes(log: Log, windows: list[Window], reference: Reference) -> Iterator[Finding]:
    """Every class's share of the predicted labels against its share of the training labels."""
    shares = reference.profile.classes
    if not shares:
        return
    for window, counts in zip(
        windows, log.values("out_label", list(shares), windows[0].version).values(), strict=True
    ):  # fmt: skip
        n = sum(counts[:-1])
        for (name, share), count in zip(shares.items(), counts, strict=False):
            check = class_surge(share, count, n) if count else class_absent(share, count, n)
            yield Finding(window, name, check, counts)


def _skew(
    settings: Settings,
    monitor: MonitorSettings,
    warehouse: Warehouse,
    endpoint: str,
    windows: list[Window],
    manifest: Manifest,
) -> Iterator[Finding]:
    """The largest share of rows in which an input differs from what the version's extract gives now."""
    inputs, query = manifest.signature.inputs, skew.question(manifest.lineage, settings)
    takes = {windows[0].package_digest: {spec.name for spec in inputs}}
    for window in windows:
        rows = skew.sample(
            warehouse, endpoint, settings.skew.key, inputs,
            first=iso(window.start), end=iso(window.end), package=window.package_digest,
        )  # fmt: skip
        n, found = skew.compare(warehouse, rows, query, inputs, takes, warehouse.snapshot())
        worst = max(found, key=lambda one: one.share)
        verdict: Verdict = "too small" if n < monitor.min_n else "alert" if worst.share > monitor.limit else "ok"
        detail = f"skew, most of it in {worst.spec.name}" if worst.mismatched else "skew"
        check = Check(value=worst.share if n else None, threshold=monitor.limit, n=n, verdict=verdict, detail=detail)
        yield Finding(window, "", check, [one.mismatched for one in found])


def volumes(
    monitor: MonitorSettings, windows: Sequence[Window], past: Mapping[datetime, int]
) -> Iterator[Finding]:  # fmt: skip
    """Requests of windows against those of the past (by window start), which they join as they are judged."""
    known = dict(past)
    for window in windows:
        before = like(window.start, monitor.window, known)
        known[window.start] = window.requests
        yield Finding(window, "", volume(before, window.requests), before)


def with_empty(
    windows: Sequence[Window], judged: Mapping[datetime, int], clock: datetime, monitor: MonitorSettings
) -> list[Window]:
    """The windows, and the empty ones between and after them (and those judged before, by rows) until the clock."""
    found = {window.start: window for window in windows}
    busy = sorted({*found, *(start for start, rows in judged.items() if rows)})
    for start, following in zip(busy, [*busy[1:], clock], strict=True):
        at = end_of(start, monitor.window)
        for _ in range(MAX_EMPTY):
            end = end_of(at, monitor.window)
            if end > following:
                break
            found[at] = Window(at, end, 0, 0, 0, None, "")
            at = end
    return sorted(found.values(), key=lambda window: window.start)
