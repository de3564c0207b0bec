"""Whether a route may let a package serve: its approvals now, or those it had when the route was given it.

The one rule that release, gateways and model servers share for packages in routes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from interlock.core.errors import Expired
from interlock.core.trust import TrustRoot
from interlock.registry.approvals import Approval, Scope, require_quorum
from interlock.registry.routes import RouteDocument, RouteStore


def admitted(
    routes: RouteStore,
    route: RouteDocument,
    package_digest: str,
    decisions: Sequence[Approval],
    author: str,
    scope: Scope,
    trust: TrustRoot,
    now: datetime,
) -> tuple[Approval, ...]:
    """The approvals by which `route` may let the package serve.

    With ON_EXPIRY=freeze those that have ended count for a package that the endpoint has had since before, and that gets no
    more than it had then. An override that has ended never does.

    Raises:
        NotApproved, Expired, FourEyes: see `require_quorum`.
    """
    try:
        return require_quorum(decisions, package_digest, author, scope, trust, now)
    except Expired:
        if route.parameters.on_expiry == "stop":
            raise
        since = min(now, routes.held_since(route, package_digest, trust))
        found = require_quorum(decisions, package_digest, author, scope, trust, since)
        if any(one.predicate.override is not None for one in found):
            raise
        return found
