"""Private keys of people."""

from __future__ import annotations

from pathlib import Path

import pytest

from interlock.core import signing
from interlock.core.clock import SystemClock, iso
from interlock.core.errors import Conflict, InterlockError, Misconfigured, NotFound, Refused, Usage
from interlock.core.trust import TrustedKey, TrustRoot
from interlock.release.keys import PASSPHRASE, Keys, prove


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    monkeypatch.setenv("INTERLOCK_KEYS_DIR", str(tmp_path / "keys"))
    monkeypatch.delenv(PASSPHRASE, raising=False)
    return Keys.find()


def trust(**keys: signing.PrivateKey) -> TrustRoot:
    """A trust root with these reviewers."""
    entries = tuple(
        TrustedKey(
            name,
            name,
            signing.key_id(key.public_key()),
            signing.public_text(key.public_key()),
            ("reviewer",),
            "2020-01-01T00:00:00Z",
        )
        for name, key in keys.items()
    )
    return TrustRoot(1, 1, "project", "team", "", entries)


@pytest.mark.parametrize("algorithm", ["ecdsa-p256", "ed25519"])
def test_a_key_comes_back_as_it_was_made(keys: Keys, algorithm: signing.Algorithm) -> None:
    made = keys.generate("rita", algorithm)
    assert signing.key_id(keys.load("rita").public_key()) == signing.key_id(made.public_key())
    assert signing.key_id(keys.public("rita")) == signing.key_id(made.public_key())
    assert [(entry.name, entry.private) for entry in keys.entries()] == [("rita", True)]


def test_only_the_person_can_read_it(keys: Keys) -> None:
    keys.generate("rita")
    assert keys.folder.stat().st_mode & 0o777 == 0o700
    assert (keys.folder / "rita").stat().st_mode & 0o777 == 0o600
    (keys.folder / "rita").chmod(0o640)
    with pytest.raises(Refused, match="others can read"):
        keys.load("rita")


def test_an_existing_folder_keeps_its_mode(keys: Keys) -> None:
    keys.folder.mkdir(mode=0o755)
    keys.folder.chmod(0o755)
    keys.generate("rita")
    assert keys.folder.stat().st_mode & 0o777 == 0o755


def test_a_key_is_never_overwritten(keys: Keys) -> None:
    keys.generate("rita")
    before = (keys.folder / "rita").read_bytes()
    with pytest.raises(Conflict, match="never overwritten"):
        keys.generate("rita")
    assert (keys.folder / "rita").read_bytes() == before


@pytest.mark.parametrize("place", [".interlock", ".interlock/keys"])
def test_private_keys_do_not_go_into_a_project(tmp_path: Path, place: str) -> None:
    with pytest.raises(Refused, match="do not belong inside a project"):
        Keys(tmp_path / "project" / place).generate("rita")
    assert not (tmp_path / "project").exists()


@pytest.mark.parametrize("name", ["", "Rita", "../rita", "a/b", "champion", "challenger-2", "shadow", "rita.", "-x"])
def test_names_that_cannot_be_a_person(keys: Keys, name: str) -> None:
    with pytest.raises(Usage):
        keys.generate(name)
    with pytest.raises(NotFound):
        keys.load(name)


def test_a_passphrase_is_needed_again(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    keys.generate("rita", passphrase="open sesame")
    with pytest.raises(Misconfigured, match="has a passphrase"):
        keys.load("rita")
    monkeypatch.setenv(PASSPHRASE, "open barley")
    with pytest.raises(Misconfigured, match="cannot be read"):
        keys.load("rita")
    monkeypatch.setenv(PASSPHRASE, "open sesame")
    assert signing.key_id(keys.load("rita").public_key()) == keys.entries()[0].keyid


def test_a_key_is_found_by_its_id(keys: Keys) -> None:
    keys.generate("rita")
    made = keys.generate("olga")
    keyid = signing.key_id(made.public_key())
    assert signing.key_id(keys.with_id(keyid).public_key()) == keyid
    (keys.folder / "olga").unlink()
    with pytest.raises(NotFound):
        keys.with_id(keyid)


def test_prove_wants_the_key_that_is_trusted(keys: Keys) -> None:
    made = keys.generate("rita")
    other = signing.generate()
    assert prove("rita", trust(rita=made), keys) is not None
    cases: list[tuple[TrustRoot, type[InterlockError], str]] = [
        (trust(rita=other), Refused, "not the one that the trust root knows"),
        (trust(olga=made), Refused, "rita is not in this project's trust root"),
    ]
    for root, error, text in cases:
        with pytest.raises(error, match=text):
            prove("rita", root, keys)
    with pytest.raises(NotFound, match="the private key of olga"):
        prove("olga", trust(olga=other), keys)


def test_prove_wants_a_key_that_is_valid_now(keys: Keys) -> None:
    root = trust(rita=keys.generate("rita"))
    ended = [
        {**{name: getattr(key, name) for name in key.__struct_fields__}, "valid_to": iso(SystemClock().now())}
        for key in root.keys
    ]
    with pytest.raises(Refused, match="is valid from"):
        prove("rita", TrustRoot(1, 1, "project", "team", "", tuple(TrustedKey(**one) for one in ended)), keys)
