"""API keys as an operator makes and takes them back: each change is a signed list and an entry of the audit trail."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from interlock.core.clock import Clock, SystemClock, iso
from interlock.core.errors import NotFound, Usage
from interlock.core.files import locked, write_atomic
from interlock.core.project import Project
from interlock.registry.tokens import FILE, Token, TokenList, Use, new_token, read_tokens, seal_tokens
from interlock.release import audit
from interlock.release.keys import Keys, prove
from interlock.release.roles import require_role
from interlock.release.users import trust_of
from interlock.store.database import Database


class Tokens:
    """The project's API keys, in the name of an operator."""

    def __init__(self, project: Project, actor: str, keys: Keys, clock: Clock | None = None) -> None:
        self._project = project
        self._actor = actor
        self._keys = keys
        self._clock = clock or SystemClock()

    def create(
        self, name: str, endpoints: tuple[str, ...], uses: tuple[Use, ...], expires: datetime | None
    ) -> tuple[str, Token]:
        """A new key. A name may have several, so that one follows the other without a gap.

        Raises:
            Usage: it would have expired already.
            Refused: the actor is no operator.
        """
        now = self._clock.now()
        if expires is not None and expires <= now:
            raise Usage(f"a key that expires on {iso(expires)} is over already")
        key, token = new_token(name, endpoints, uses, self._actor, now, expires)
        self._change("token create", token, lambda tokens: (*tokens, token))
        return key, token

    def revoke(self, wanted: str, at: datetime | None = None) -> list[Token]:
        """End a key by its id, or all keys of a name: now, or at that time.

        Raises:
            NotFound: there is none.
        """
        end = iso(at or self._clock.now())
        found = [one for one in all_tokens(self._project) if wanted in (one.id, one.name)]
        found = [one for one in found if one.expires_at is None or one.expires_at > end]
        if not found:
            raise NotFound(f"no API key {wanted} is in force", next="see them: interlock tokens list")
        ended = {one.id: msgspec.structs.replace(one, expires_at=end) for one in found}
        for token in ended.values():
            self._change("token revoke", token, lambda tokens: tuple(ended.get(one.id, one) for one in tokens))
        return list(ended.values())

    def _change(self, action: str, about: Token, change: Callable[[tuple[Token, ...]], tuple[Token, ...]]) -> None:
        trust = trust_of(self._project)
        require_role(trust, self._actor, "tokens")
        key = prove(self._actor, trust, self._keys, self._clock)
        path = self._project.state / FILE
        with locked(self._project.locks / "tokens"):
            before = read_tokens(path, trust, past=True)
            after = TokenList(1, before.revision + 1, iso(self._clock.now()), change(before.tokens))
            write_atomic(path, seal_tokens(after, key))
        said = {"name": about.name, "endpoints": about.endpoints, "uses": about.uses, "expires_at": about.expires_at}
        audit.append(Database(self._project.database), self._actor, action, about.id, None, said)


def all_tokens(project: Project) -> tuple[Token, ...]:
    """Every key that was ever made, the oldest first; their hashes, never the keys."""
    return read_tokens(project.state / FILE, trust_of(project), past=True).tokens
