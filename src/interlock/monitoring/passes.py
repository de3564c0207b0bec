"""A pass: judge the windows that are over, keep the numbers, move the alerts, tell the webhook.

A second pass over the same windows changes nothing. Work follows what is new: a window is judged once, and again only when
rows for it came late; then its number is corrected, while alerts follow new windows only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from functools import partial
from itertools import product

from interlock.core.clock import SystemClock
from interlock.core.errors import InterlockError, Misconfigured
from interlock.core.project import Project, snake
from interlock.core.settings import MonitorSettings, Settings
from interlock.monitoring import alerts, checks, readings
from interlock.monitoring.checks import Finding
from interlock.monitoring.expiry import watch_approvals
from interlock.monitoring.notify import deliver
from interlock.monitoring.overrides import watch_overrides
from interlock.monitoring.readings import Reading, name_of, reading_of
from interlock.monitoring.realised import watch_changes
from interlock.monitoring.windows import look
from interlock.registry.packages import PackageStore
from interlock.registry.routes import RouteStore
from interlock.store.database import Database
from interlock.warehouse.ducklake import open_warehouse
from interlock.warehouse.port import Warehouse

log = logging.getLogger("interlock.monitoring")


def watch(
    project: Project,
    database: Database,
    warehouse: Warehouse,
    endpoint: str,
    now: datetime | None = None,
    *,
    final: bool = False,
) -> list[Reading]:
    """Run the project's monitors over one endpoint's log; the new readings, in the order of their windows.

    final: the last window is judged too, though it is not over (volumes are not: half a day has half the requests).

    Raises:
        Misconfigured: two monitors of one kind and window, or an unknown input.
    """
    at = now or SystemClock().now()
    settings = project.settings()
    monitors = {name_of(monitor): monitor for monitor in settings.monitors}
    if len(monitors) < len(settings.monitors):
        raise Misconfigured("two [[monitors]] have the same kind and window", next="make them one in interlock.toml")
    if f"interlock.predictions_{snake(endpoint)}" not in {table.name for table in warehouse.tables()}:
        return []  # nobody has asked yet
    packages, found, failed = PackageStore(project.packages), [], []
    for name, monitor in monitors.items():
        try:
            findings = _judge(database, warehouse, endpoint, name, monitor, packages, settings, at, final=final)
        except InterlockError as error:  # an extract that fails, say; the other monitors watch on, then it is told
            failed.append(error)
            continue
        new = [reading_of(endpoint, monitor, finding, at) for finding in findings]
        new.sort(key=lambda reading: reading.window_start)
        alerts.take(database, new, at)
        found += new
    if failed:
        raise failed[0]
    return found


def _judge(
    database: Database,
    warehouse: Warehouse,
    endpoint: str,
    name: str,
    monitor: MonitorSettings,
    packages: PackageStore,
    settings: Settings,
    at: datetime,
    *,
    final: bool,
) -> list[Finding]:
    """The checks of the windows that are over and new, or that got late rows."""
    after, last_pass = readings.progress(database, endpoint, name)
    seen = look(warehouse, endpoint, monitor.window, after, last_pass, at)
    if seen.clock is None:
        return []
    known = readings.judged(database, endpoint, name, min(seen.windows))
    windows = list(seen.windows.values())
    if monitor.kind == "volume":
        windows = checks.with_empty(windows, known, seen.clock, monitor)
    over = [window for window in windows if window.over(seen.clock) or (final and monitor.kind != "volume")]
    due = [window for window in over if known.get(window.start) != window.rows]
    if monitor.kind == "volume":
        return list(checks.volumes(monitor, due, readings.requests_of(database, endpoint, name)))
    return list(checks.compare(settings, monitor, warehouse, endpoint, due, packages))


def watch_all(project: Project, database: Database) -> int:
    """A pass over every endpoint that has a log, then the webhook; how many readings are new.

    What fails is told of in the log, and does not keep others from being watched.
    """
    count = 0
    with closing(open_warehouse(project.warehouse, read_only=True)) as warehouse:
        looks: tuple[Callable[[str, datetime], list[Reading]], ...] = (
            partial(watch_approvals, project, database),
            partial(watch_overrides, project, database),
            partial(watch_changes, project, database, warehouse),
            partial(watch, project, database, warehouse),
        )
        for endpoint, look in product(RouteStore(project.routes).endpoints(), looks):
            try:
                count += len(look(endpoint, SystemClock().now()))
            except InterlockError as error:
                log.warning("the monitors of %s will look again: %s", endpoint, error.message)
    deliver(database, project.settings())
    return count
