"""`interlock model-server`: one package behind a port, by hand. A parent that writes refusals to the audit trail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import msgspec

from interlock.cli.identity import As, somebody
from interlock.cli.output import Reply
from interlock.cli.session import Flags, Session
from interlock.core.errors import Misconfigured, Refused, Usage, class_of
from interlock.core.lifeline import Child


class _Reason(msgspec.Struct):
    """The last line on stderr of a model server that did not start."""

    code: str
    message: str
    next: str = ""


def model_server(
    *,
    session: Session,
    package: Path,
    approval: Path | None = None,
    trust: Path | None = None,
    root: str = "",
    host: str = "127.0.0.1",
    port: int | None = None,
    grpc_port: int | None = None,
    socket: Path | None = None,
    scope: Literal["serve", "shadow"] = "serve",
    offline: bool = False,
    as_: As = None,
) -> Reply | None:
    """Serve one approved package until it is told to stop; refused: exit 1, one sentence, no port opened.

    Args:
        package: The package's directory.
        approval: Its signed approval, or the folder of all decisions about it.
        trust: trust.json
        root: Fingerprint of the root key that signed it.
        host: Address of the port.
        port: REST on this port.
        grpc_port: gRPC on this port.
        socket: Batches on this Unix socket, REST on SOCKET.http.
        scope: What the approval must allow.
        offline: Without an approval, on a Unix socket only, for evaluation.
    """
    ports = [one for one in (port, grpc_port) if one is not None]
    if offline and (ports or socket is None):
        raise Usage("--offline serves on a Unix socket only", next="--offline --socket PATH")
    if not ports and socket is None:
        raise Usage("say where to serve", next="--port N, --grpc-port N, or --socket PATH")
    values = {"package": package, "approval": approval, "trust": trust, "root": root, "host": host, "port": port}
    values |= {"grpc-port": grpc_port, "socket": socket, "scope": scope}
    words = [word for name, value in values.items() if value not in (None, "") for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "interlock.processes.model_server", *words, *(["--offline"] if offline else [])]
    code, reason = _serve(command, sys.stderr if session.json else sys.stdout)
    if reason is None:
        return Reply({"exit": code}, (), failed=code != 0)
    error = class_of(reason.code)(reason.message, next=reason.next)
    if isinstance(error, Refused):
        _remember(session, somebody(as_), package, reason)
    raise error


def _serve(command: list[str], output: Any) -> tuple[int, _Reason | None]:
    """Run it to its end, passing signals on and its log through; the exit code, and why it refused."""
    child = Child(command, environment=os.environ, output=output.fileno(), stderr=subprocess.PIPE)
    old = {
        number: signal.signal(number, lambda number, _: child.signal(signal.Signals(number)))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        reason = None
        for line in child.process.stderr or ():
            reason = _reason(line)
            if reason is None:
                sys.stderr.buffer.write(line)
                sys.stderr.flush()
        code = child.process.wait()
    finally:
        child.kill_group()
        for number, handler in old.items():
            signal.signal(number, handler)
    return code, reason if code == 1 else None


def _reason(line: bytes) -> _Reason | None:
    try:
        return msgspec.json.decode(line, type=_Reason)
    except msgspec.DecodeError:
        return None


def _remember(session: Flags, actor: str, package: Path, reason: _Reason) -> None:
    """Inside a project the refusal goes to its audit trail."""
    try:
        project = session.project
    except Misconfigured:
        return
    if project.database.exists():
        from interlock.release import audit
        from interlock.store.database import Database

        audit.refused(Database(project.database), actor, "model-server", package.name, reason.code, reason.message)
