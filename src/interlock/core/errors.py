"""The tree of errors. Each says what happened, with which value, and what to do next; edges translate it, nobody else.

`code` is stable and documented in docs/reference/errors.md. The command line prints message and next step and leaves with 1
(`Usage`: 2); HTTP skins map the class to a status in one table (`interlock.core.http.STATUS`).
"""

from __future__ import annotations

from typing import ClassVar


class InterlockError(Exception):
    """Base of everything that Interlock raises on purpose. `next` is one sentence with the mending step, or empty."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, next: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next = next


class Usage(InterlockError):
    """The command was called with words that do not fit together."""

    code = "usage"


class Misconfigured(InterlockError):
    """A setting, an environment variable or `interlock.toml` holds something that cannot be used."""

    code = "misconfigured"


class NotFound(InterlockError):
    """The named thing does not exist."""

    code = "not_found"


class Conflict(InterlockError):
    """The state does not allow it now: somebody else was first, or a step is missing."""

    code = "conflict"


class Refused(InterlockError):
    """The gate says no: not approved, not allowed, not trusted. Never retried."""

    code = "refused"


class Tampered(Refused):
    """Bytes differ from what was signed or listed: a digest, a signature or the canonical form does not match."""

    code = "tampered"


class NotApproved(Refused):
    """No valid approval of the needed scope for this package."""

    code = "not_approved"


class Expired(NotApproved):
    """The approvals of this package were enough, and have ended."""

    code = "expired"


class FourEyes(Refused):
    """The author may not sign their own model."""

    code = "four_eyes"


class RecipeFailed(InterlockError):
    """The user's recipe or feature function raised, or returned something that cannot be packaged."""

    code = "recipe_failed"


class InvalidData(InterlockError):
    """Rows of a table, a file or an extract are not what was declared."""

    code = "invalid_data"


class InvalidRequest(InterlockError):
    """A request that does not fit the signature or the protocol; names input, expected, got."""

    code = "invalid_request"


class MethodNotAllowed(InvalidRequest):
    """The path is served, but not with this method; `allowed` are those it takes, as the header `Allow` lists them."""

    code = "method_not_allowed"

    def __init__(self, message: str, *, allowed: str = "", next: str = "") -> None:
        super().__init__(message, next=next)
        self.allowed = allowed


class TooLarge(InvalidRequest):
    """The body is over the limit."""

    code = "too_large"


class UnsupportedMedia(InvalidRequest):
    """The content type, or the content encoding, is not spoken here."""

    code = "unsupported_media"


class UnknownVersion(InvalidRequest):
    """The version in the path is not live, or pinning is not allowed at this endpoint."""

    code = "unknown_version"


class Unauthenticated(InterlockError):
    """This endpoint wants an API key, and none came, or one that is unknown, expired or not for this."""

    code = "unauthenticated"


class RuleRefused(InterlockError):
    """A rule of the endpoint refuses this request."""

    code = "rule_refused"


class Overloaded(InterlockError):
    """More requests are under way than MAX_CONCURRENCY allows; try again a little later."""

    code = "overloaded"


class Unavailable(InterlockError):
    """Nobody can answer now: deactivated, draining, no live upstream, log not writable."""

    code = "unavailable"


class DeadlineExceeded(InterlockError):
    """The answer did not come within the endpoint's TIMEOUT_SECOND."""

    code = "deadline_exceeded"


class PredictionFailed(InterlockError):
    """The model raised on this request."""

    code = "prediction_failed"


class NotRunning(InterlockError):
    """The command needs a process that does not live."""

    code = "not_running"


class Corrupt(InterlockError):
    """A stored file is damaged: a bad checksum in a sealed segment, an unknown format number."""

    code = "corrupt"


def class_of(code: str, root: type[InterlockError] = InterlockError) -> type[InterlockError]:
    """The class of errors with that code, which came from another process; `InterlockError` if there is none here."""
    found = (class_of(code, child) for child in root.__subclasses__())
    return root if root.code == code else next((one for one in found if one.code == code), InterlockError)
