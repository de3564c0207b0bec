"""`interlock sign`: a change that waits for signatures, shown and signed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from interlock.cli.identity import As
from interlock.cli.output import Reply, cell
from interlock.cli.session import Session
from interlock.core.errors import Usage
from interlock.core.signing import peek
from interlock.registry.routes import RouteDocument
from interlock.release.keys import Keys
from interlock.release.obeyed import wait_until_obeyed

if TYPE_CHECKING:
    from interlock.release.proposals import Signed


def sign(file: Path, /, *, session: Session, no_wait: bool = False, as_: As = None) -> Reply:
    """Show a change that waits for signatures, and sign it.

    Args:
        file: The proposal: of a route, or of the trust root, as `interlock keys sign-root` takes it.
        no_wait: Do not wait until the gateways obey.
    """
    from interlock.cli import keys  # here: one of the two is needed
    from interlock.release import proposals

    if not file.is_file():
        raise Usage(f"there is no file {file}", next="interlock sign FILE --as NAME; is it signed already?")
    claimed = peek(file.read_bytes(), file.name)
    if not isinstance(claimed, dict) or "endpoint" not in claimed:
        return keys.sign(file, session=session, as_=as_)
    if as_ is None:
        return told(proposals.read_proposal(session.project, file))
    signed = proposals.sign(session.project, as_, Keys.find(), file)
    if signed.missing or no_wait:
        return told(signed)
    return told(signed, len(wait_until_obeyed(session.project, signed.route)))


def told(signed: Signed, gateways: int = 0) -> Reply:
    """A proposed revision as programs and people read it."""
    route = signed.route
    waits = f"it waits: {signed.missing}; {', '.join(signed.may_sign) or 'nobody else'} may sign"
    state = waits if signed.missing else f"in force, obeyed by {gateways} gateway(s)"
    until = route.override.until if route.override else None
    names = ("endpoint", "revision", "author", "reason", "parameters", "rules", "risk", "diff")
    document: dict[str, Any] = {name: msgspec.to_builtins(getattr(route, name)) for name in names}
    document |= {name: getattr(signed, name) for name in ("signed_by", "missing", "may_sign")}
    document |= {"override": until, "proposal": signed.file if signed.missing else None, "gateways": gateways}
    text = (
        f"revision {route.revision} of {route.endpoint} by {route.author}: {route.reason}".rstrip(": "),
        *changed(signed.before, route),
        f"an override until {until}; then all is as before"
        if until
        else f"class {route.risk or 'low'}, diff {route.diff}",
        f"signed by {', '.join(signed.signed_by)}; {state}",
    )
    step = f"interlock sign {signed.file} --as NAME" if signed.missing else f"interlock params {route.endpoint}"
    return Reply(document, text, step)


def changed(before: RouteDocument, after: RouteDocument) -> list[str]:
    """What differs in parameters and rules, a line each."""
    old, new = (msgspec.to_builtins(route.parameters) for route in (before, after))
    said = [f"{name}: {cell(old[name])} → {cell(new[name])}" for name in new if old[name] != new[name]]
    said += [f"rule {one.name} goes" for one in before.rules if one not in after.rules]
    said += [f"rule {one.name} comes: {one.then} when {one.when}" for one in after.rules if one not in before.rules]
    if before.override and before.override != after.override:
        said.append(f"the override of revision {before.revision} ends with it")
    return said
