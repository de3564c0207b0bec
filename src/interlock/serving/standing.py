"""Whether the package that is served still may be: a key that is revoked, a rejection or an end counts while it serves.

A gateway looks for itself, sends what comes to whoever stands by, and follows ON_EXPIRY. So its batches are refused a little
later than everybody else, and an end stops only a server that was started for no route.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import datetime
from pathlib import Path

from interlock.core.clock import Clock
from interlock.core.errors import Expired, InterlockError, NotApproved
from interlock.core.files import marks
from interlock.core.trust import TrustKeeper, TrustRoot
from interlock.model.package import Package
from interlock.registry.approvals import Scope, end_of, require_quorum
from interlock.serving.door import read_approvals

LOOK_SECONDS = 0.5
GATEWAY_SECONDS = 1.0
"""So much later than others a gateway is refused: it has noticed by then."""
log = logging.getLogger("interlock.serving")


class Standing:
    """How a package stands. This one is offline, for evaluation: nobody is asked. See `Watched` for all others."""

    approved = "offline"
    """Said in every answer."""
    refused = ""
    """Why it may not be served any more; empty: it may."""

    def require(self) -> None:
        """Raises NotApproved: it may not be served any more."""

    def refused_to_gateways(self) -> str:
        """As `refused`, of the batches of a gateway."""
        return ""

    async def watch(self) -> None:
        """Look again and again, for ever; offline there is nothing to look at."""


class Watched(Standing):
    """A package that was admitted, under decisions and a trust root that may change."""

    def __init__(
        self,
        package: Package,
        approved: str,
        *,
        approval: Path,
        keeper: TrustKeeper,
        scope: Scope,
        clock: Clock,
        routed: bool,
    ) -> None:
        """`approved`: `approved` or `self-approved`. `approval`: a file, or a folder of them. `routed`: gateways judge ends."""
        self.approved = self._word = approved
        self._package = package
        self._approval = approval
        self._keeper = keeper
        self._trust: TrustRoot | None = None
        self._scope: Scope = scope
        self._clock = clock
        self._routed = routed
        self._looked: object = None
        self._ends: datetime | None = None
        self._since = 0.0
        self.look()

    def look(self) -> None:
        """Judge again if a file has changed or an approval has ended."""
        why = ""
        try:
            ended = self._ends is not None and self._ends <= self._clock.now()
            marker = (ended, marks(self._keeper.path, self._approval))
            if marker == self._looked:
                return
            self._looked = marker
            self._judge()
        except Expired as error:
            why = "" if self._routed else error.message
        except InterlockError as error:
            why = error.message
        except Exception as error:  # noqa: BLE001 - what cannot be judged may not be served
            self._looked, why = None, f"the approval of package {self._package.digest} cannot be read: {error}"
        if why and not self.refused:
            self._since = time.monotonic()
            log.warning("served no more: %s", why)
        elif self.refused and not why:
            log.warning("package %s is served again", self._package.digest)
        self.refused, self.approved = why, "refused" if why else self._word

    def _judge(self) -> None:
        """While the trust root cannot be read, the one before counts, as at a gateway.

        Raises:
            Refused: see `read_approvals` and `require_quorum`.
        """
        try:
            self._trust = self._keeper.read()
        except (InterlockError, OSError) as error:
            if self._trust is None:
                raise
            log.warning("%s: what it said before counts", error)
        trust, digest = self._trust, self._package.digest
        decisions = read_approvals(digest, self._approval, trust)
        author, now = self._package.manifest.author.name, self._clock.now()
        found = require_quorum(decisions, digest, author, self._scope, trust, now)
        self._ends = min((end for one in found if (end := end_of(one, trust))), default=None)
        self._word = "self-approved" if found[0].predicate.self_approved else "approved"

    def require(self) -> None:
        """See `Standing`. What is refused is looked at again at once: it may have been approved anew."""
        if self.refused:
            self.look()
            if self.refused:
                raise NotApproved(self.refused)

    def refused_to_gateways(self) -> str:
        """See `Standing`."""
        if self.refused:
            self.look()
        return self.refused if time.monotonic() - self._since >= GATEWAY_SECONDS else ""

    async def watch(self) -> None:
        """See `Standing`."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()
