"""Telling people who are not looking: a POST of JSON to a webhook, a plain mail. Each raises OSError when it was not taken."""

from __future__ import annotations

import smtplib
import ssl
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from email.message import EmailMessage
from email.utils import formatdate
from logging import Logger
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from interlock.core.errors import InterlockError, Misconfigured
from interlock.core.settings import MailSettings

TIMEOUT = 5.0
"""Seconds that the other side gets for each of its answers."""
T = TypeVar("T")
C = TypeVar("C", bound=str)


def deliver(
    untold: Iterable[tuple[T, Sequence[C]]],
    send: Callable[[C, T], None],
    told: Callable[[T, list[C]], None],
    what: Callable[[T], str],
    log: Logger,
) -> bool:
    """Send each piece of news to the channels that have not taken it; whether all did. `told` gets those that have not.

    A channel's first failure ends its round, so that a dead one costs one time-out.
    """
    dead: set[C] = set()
    for news, channels in untold:
        left: list[C] = []
        for channel in channels:
            try:
                if channel not in dead:
                    send(channel, news)
                    continue
            except (OSError, InterlockError) as error:  # OSError: refused, timed out, no success; SMTPException is one
                log.warning("the %s did not take news %s, it is tried again: %s", channel, what(news), error)
                dead.add(channel)
            left.append(channel)
        told(news, left)
    return not dead


def post(url: str, body: object, setting: str) -> None:
    """POST `body` as JSON; `setting` names where the address comes from.

    Raises:
        Misconfigured: it is no http or https address.
        OSError: refused, timed out, or an answer that is no success.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise Misconfigured(
            f"the webhook {url!r} is no http or https address", next=f"mend {setting} in interlock.toml"
        )
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, msgspec.json.encode(body), headers)  # noqa: S310 - the scheme is checked above
    with urllib.request.urlopen(request, timeout=TIMEOUT):  # noqa: S310
        pass


def mail(settings: MailSettings, to: Sequence[str], subject: str, text: str) -> None:
    """Send a mail through `[mail] server`.

    Raises:
        Misconfigured: there is no server, or its name cannot be read.
        OSError: refused, timed out, or no recipient was accepted (SMTPException is one).
    """
    host, _, port = settings.server.rpartition(":")
    if not host or not port.isdecimal():
        raise Misconfigured(
            f"[mail] server {settings.server!r} is no HOST:PORT", next='as in server = "mail.my.org:587"'
        )
    message = EmailMessage()
    message["Subject"] = " ".join(subject.split())
    message["From"] = settings.sender
    message["To"] = ", ".join(to)
    message["Date"] = formatdate()
    message.set_content(text)
    context = ssl.create_default_context()
    with (
        smtplib.SMTP_SSL(host, int(port), timeout=TIMEOUT, context=context)
        if settings.security == "tls"
        else smtplib.SMTP(host, int(port), timeout=TIMEOUT)
    ) as server:
        if settings.security == "starttls":
            server.starttls(context=context)
        if settings.user:
            server.login(settings.user, settings.password)
        server.send_message(message)
