"""Private keys of people: files of their own folder, never the project's, or keys that their ssh-agent holds."""

from __future__ import annotations

import getpass
import os
import re
import sys
from pathlib import Path

import msgspec

from interlock.core import agent, signing
from interlock.core.clock import Clock, SystemClock
from interlock.core.errors import Conflict, Misconfigured, NotFound, Refused, Usage
from interlock.core.files import write_new
from interlock.core.trust import TrustRoot

PASSPHRASE = "INTERLOCK_KEY_PASSPHRASE"  # noqa: S105 the name of a variable, not its value
PASSPHRASE_FILE = "INTERLOCK_KEY_PASSPHRASE_FILE"  # noqa: S105
AGENT = "SSH_AUTH_SOCK"
PERSON = re.compile(r"[a-z][a-z0-9]*(?:[._-][a-z0-9]+)*")
ARM = re.compile(r"champion|(?:challenger|shadow)(?:-\d+)?")
"""Names of arms; no person may be called so, because `--as` takes both."""


class KeyEntry(msgspec.Struct, frozen=True):
    """A key on this machine."""

    name: str
    keyid: str
    path: str
    private: bool
    """False: only the public half lies here."""


class Keys:
    """The keys in a folder: `NAME` (private, 0600) and `NAME.pub`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def find(cls) -> Keys:
        """`INTERLOCK_KEYS_DIR`, else `~/.config/interlock/keys`."""
        return cls(Path(os.environ.get("INTERLOCK_KEYS_DIR") or Path.home() / ".config" / "interlock" / "keys"))

    def generate(self, name: str, algorithm: signing.Algorithm = "ecdsa-p256", passphrase: str = "") -> signing.FileKey:
        """Make and keep a new key; an existing one is never overwritten.

        Raises:
            Usage: the name cannot be a person's.
            Conflict: there is a key of that name.
            Refused: the folder is inside a project's `.interlock`.
        """
        self._prepare(name)
        key = signing.generate(algorithm)
        write_new(self.folder / name, signing.private_pem(key, passphrase), 0o600)
        write_new(self.folder / f"{name}.pub", f"{signing.public_text(key.public_key())}\n".encode())
        return key

    def _prepare(self, name: str) -> None:
        if not PERSON.fullmatch(name) or ARM.fullmatch(name):
            raise Usage(f"{name!r} cannot name a key", next="use lower-case letters and digits, as in: rita, jean-luc")
        if ".interlock" in self.folder.resolve().parts:
            raise Refused(
                f"private keys do not belong inside a project: {self.folder}",
                next="set INTERLOCK_KEYS_DIR to a folder of your own",
            )
        if not self.folder.exists():
            self.folder.mkdir(parents=True)
            self.folder.chmod(0o700)
        if (self.folder / name).exists() or (self.folder / f"{name}.pub").exists():
            raise Conflict(
                f"there is a key {name} in {self.folder}; keys are never overwritten",
                next=f"use it, or choose another name: interlock keys generate {name}-2",
            )

    def add_agent(self, name: str, comment: str = "") -> agent.AgentKey:
        """Keep the public half of a key in the ssh-agent as `name`: the only one, or the one with that comment.

        Raises:
            Usage, Refused: as `generate`; also when the agent has no such key, or several.
            Conflict: there is a key of that name.
        """
        self._prepare(name)
        held = _agent_keys()
        found = [key for key in held if comment in ("", key.comment)]
        if len(found) != 1:
            there = ", ".join(repr(key.comment) for key in held) or "none"
            raise Usage(
                f"the ssh-agent has {len(found)} such keys of Ed25519 or ECDSA P-256 (there: {there})",
                next=f"interlock keys add-ssh {name} --comment COMMENT; or first: ssh-add FILE",
            )
        write_new(self.folder / f"{name}.pub", f"{signing.public_text(found[0].public_key())}\n".encode())
        return found[0]

    def free_name(self, name: str) -> str:
        """`NAME`, or with the first number for which there is no key yet: `NAME-2`."""
        known, number, found = {entry.name for entry in self.entries()}, 2, name
        while found in known:
            found, number = f"{name}-{number}", number + 1
        return found

    def load(self, name: str) -> signing.PrivateKey:
        """The private key of `name`: its file, or its ssh-agent's where only the public half lies here.

        The passphrase comes from `INTERLOCK_KEY_PASSPHRASE`, a file, or the terminal.

        Raises:
            NotFound: it does not lie here, nor does the agent have it.
            Refused: others may read it.
            Misconfigured: it cannot be read, or the passphrase is wrong or missing.
        """
        path = self.folder / name
        if (
            PERSON.fullmatch(name)
            and not path.is_file()
            and path.with_name(f"{name}.pub").is_file()
            and AGENT in os.environ
        ):
            keyid = signing.key_id(self.public(name))
            held = next((key for key in _agent_keys() if signing.key_id(key.public_key()) == keyid), None)
            if held is not None:
                return held
        if not PERSON.fullmatch(name) or not path.is_file():
            raise NotFound(
                f"the private key of {name} is not in {self.folder}",
                next=f"set INTERLOCK_KEYS_DIR to where it is, or make one: interlock keys generate {name}",
            )
        if path.stat().st_mode & 0o077:
            raise Refused(f"others can read the private key {path}", next=f"chmod 600 {path}")
        pem = path.read_bytes()
        return signing.load_private(pem, _passphrase(name) if b"ENCRYPTED" in pem else "")

    def public(self, name: str) -> signing.PublicKey:
        """The public key of `name`.

        Raises:
            NotFound: it does not lie here.
        """
        path = self.folder / f"{name}.pub"
        if not PERSON.fullmatch(name) or not path.is_file():
            raise NotFound(
                f"the public key of {name} is not in {self.folder}",
                next=f"name the file: --public-key FILE; or make a key: interlock keys generate {name}",
            )
        return signing.load_public(path.read_text(encoding="ascii"))

    def entries(self) -> list[KeyEntry]:
        """All keys here, by name."""
        found = []
        for path in sorted(self.folder.glob("*.pub")):
            keyid = signing.key_id(signing.load_public(path.read_text(encoding="ascii")))
            found.append(KeyEntry(path.stem, keyid, str(path.with_suffix("")), path.with_suffix("").is_file()))
        return found

    def with_id(self, keyid: str) -> signing.PrivateKey:
        """The private key whose public half has that id.

        Raises:
            NotFound: it does not lie here.
        """
        for entry in self.entries():
            if entry.keyid == keyid:
                return self.load(entry.name)
        raise NotFound(
            f"the private key {keyid} is not in {self.folder}", next="set INTERLOCK_KEYS_DIR to the folder it lies in"
        )


def prove(name: str, trust: TrustRoot, keys: Keys, clock: Clock | None = None) -> signing.PrivateKey:
    """The private key of `name`, which proves that whoever acts is the `name` of the trust root.

    Raises:
        Refused: the trust root does not know the name, knows another key, or the key is not valid now.
        NotFound: the private key does not lie here.
    """
    trusted = trust.key_named(name)
    mine = next(
        (entry.name for entry in keys.entries() if entry.keyid == trusted.keyid), name
    )  # after a rotation: NAME-2
    key = keys.load(mine)
    if signing.key_id(key.public_key()) != trusted.keyid:
        raise Refused(
            f"the key {name} in {keys.folder} is not the one that the trust root knows as {name}",
            next="set INTERLOCK_KEYS_DIR to the folder with the right key",
        )
    if not trusted.valid_at((clock or SystemClock()).now()):
        raise Refused(f"the key of {name} is valid from {trusted.valid_from} to {trusted.valid_to or 'ever'} only")
    return key


def _agent_keys() -> list[agent.AgentKey]:
    if not os.environ.get(AGENT):
        raise Misconfigured(f"no ssh-agent: {AGENT} is not set", next="start one: eval $(ssh-agent) && ssh-add")
    return agent.keys_of(os.environ[AGENT])


def _told_passphrase() -> str | None:
    """What the environment says, directly or by the name of a file that nobody else can read."""
    if PASSPHRASE_FILE not in os.environ:
        return os.environ.get(PASSPHRASE)
    path = Path(os.environ[PASSPHRASE_FILE])
    if not path.is_file():
        raise Misconfigured(f"{PASSPHRASE_FILE} names {path}, which is no file")
    if path.stat().st_mode & 0o077:
        raise Refused(f"others can read the passphrase in {path}", next=f"chmod 600 {path}")
    return path.read_text(encoding="utf-8").removesuffix("\n")


def _passphrase(name: str) -> str:
    found = _told_passphrase()
    if found is None and sys.stdin.isatty():
        found = getpass.getpass(f"passphrase of the key {name}: ")
    if found is None:
        raise Misconfigured(
            f"the key {name} has a passphrase", next=f"set {PASSPHRASE_FILE} or {PASSPHRASE}, or run this on a terminal"
        )
    return found


def new_passphrase(name: str, *, wanted: bool) -> str:
    """The passphrase for a new key: what the environment says, asked twice when `wanted`, else none.

    Raises:
        Usage: the two do not match, or there is no terminal to ask on.
    """
    found = _told_passphrase() or ""
    if found or not wanted:
        return found
    if not sys.stdin.isatty():
        raise Usage("a passphrase needs a terminal to be typed on", next=f"or set {PASSPHRASE}")
    first = getpass.getpass(f"new passphrase of the key {name}: ")
    if first != getpass.getpass("once more: "):
        raise Usage("the two passphrases differ")
    return first
