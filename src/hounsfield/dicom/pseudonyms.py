"""Keyed pseudonyms: the one place where identifiers of patients, series and files are turned into keys."""

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

from hounsfield.errors import InputError

ENVIRONMENT = "HOUNSFIELD_PSEUDONYM_KEY"
_DIGITS = 16


class Pseudonyms:
    """HMAC-SHA256 of an identifier under a secret key, cut to 16 hexadecimal digits.

    Without the key a pseudonym cannot be traced back or recomputed; with it, the same patient gets the same pseudonym
    in every ingest, which keeps splits stable.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, kind: str, *identifiers: str) -> str:
        """Pseudonym of `identifiers`; equal identifiers of different `kind` give different pseudonyms."""
        message = "\0".join((kind, *identifiers)).encode("utf-8", "surrogateescape")
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()[:_DIGITS]


def key_file() -> Path:
    """Where the key lives when the environment does not give it."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "hounsfield" / "pseudonym.key"


def load_pseudonyms() -> Pseudonyms:
    """Pseudonyms under HOUNSFIELD_PSEUDONYM_KEY, else under the key file, which is made at first use (mode 0600).

    Raises:
        InputError: there is no key and none can be written, or the key is empty.
    """
    given = os.environ.get(ENVIRONMENT)
    if given:
        return Pseudonyms(given.encode())
    path = key_file()
    try:
        if not path.exists():
            _create(path)
        key = path.read_text().strip()
    except OSError as error:
        raise InputError(
            f"the pseudonym key {path} cannot be read or made ({error.strerror}): set {ENVIRONMENT} to a secret text"
        ) from error
    if not key:
        raise InputError(f"the pseudonym key {path} is empty: restore it, or set {ENVIRONMENT} to a secret text")
    return Pseudonyms(key.encode())


def _create(path: Path) -> None:
    """Write a new key under a temporary name and link it into place, so that of several processes one wins."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
        with suppress(FileExistsError):
            os.link(partial, path)
    finally:
        partial.unlink(missing_ok=True)
