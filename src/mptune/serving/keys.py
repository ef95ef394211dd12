"""Who may ask a server, for which tasks, how often. A file holds hashes of keys, and no key."""

import hashlib
import hmac
import os
import secrets
import threading
import time
from collections import deque
from pathlib import Path

from pydantic import Field

from mptune.config import Config
from mptune.errors import ConfigError, UsageError, reason
from mptune.files import json_object, write_file

PREFIX = "mpt_"
MINUTE = 60.0  # seconds


class ApiKey(Config):
    """What a key opens; of the key itself only a hash."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """By which logs and messages call it."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the key. It is 256 drawn bits, so that a plain hash cannot be guessed back."""
    tasks: tuple[str, ...] = ()
    """The only tasks it may ask; all where there are none."""
    per_minute: int | None = Field(None, ge=1)
    """Requests; as many as come where absent."""
    admin: bool = False
    """Whether it may add, replace and remove tasks, and sees all of the server."""


class KeyFile(Config):
    """The keys of a server."""

    keys: tuple[ApiKey, ...] = ()


def read_keys(file: Path) -> tuple[ApiKey, ...]:
    """Return the keys of a file.

    Raises:
        UsageError: it cannot be read.
        ConfigError: it holds something else, two keys of one name, or none.
    """
    try:
        values = json_object(file)
    except OSError as error:
        raise UsageError(
            f"the keys in {file} cannot be read: {reason(error)}. `mptune keys` makes such a file."
        ) from None
    if values is None:
        raise ConfigError(str(file), ["wants JSON as `mptune keys` writes it"])
    keys = KeyFile.read(values, str(file)).keys
    if twice := [key.name for key in keys if [k.name for k in keys].count(key.name) > 1]:
        raise ConfigError(str(file), [f"two keys are called {twice[0]}"])
    if not keys:
        raise ConfigError(str(file), ["holds no key; `mptune keys` makes one"])
    return keys


def add_key(file: Path, name: str, tasks: tuple[str, ...], per_minute: int | None, *, admin: bool) -> str:
    """Draw a key, add its hash to a file, and return the key: it is told once, and stands nowhere.

    Raises:
        UsageError, ConfigError: as `read_keys`; or a key of that name is there.
    """
    keys = read_keys(file) if os.path.exists(file) else ()  # a name that no file system has is none
    if name in [key.name for key in keys]:
        raise UsageError(f"{file} has a key called {name!r} already; take another name, or --remove it first")
    drawn = PREFIX + secrets.token_urlsafe(32)
    values = {"name": name, "sha256": hashed(drawn), "tasks": tasks, "per_minute": per_minute, "admin": admin}
    _write(file, (*keys, ApiKey.read(values, f"the key {name}")))
    return drawn


def remove_key(file: Path, name: str) -> None:
    """Take a key from a file.

    Raises:
        UsageError, ConfigError: as `read_keys`; or there is none of that name.
    """
    keys = read_keys(file)
    left = tuple(key for key in keys if key.name != name)
    if len(left) == len(keys):
        raise UsageError(f"{file} has no key called {name!r}; it has {', '.join(key.name for key in keys)}")
    _write(file, left)


def hashed(key: str) -> str:
    """Return what a file holds of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def _write(file: Path, keys: tuple[ApiKey, ...]) -> None:
    try:
        write_file(file, KeyFile(keys=keys).model_dump_json(indent=1) + "\n")
        file.chmod(0o600)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {reason(error)}") from None


class Gate:
    """Knows keys, and counts their requests. Safe between threads."""

    def __init__(self, keys: tuple[ApiKey, ...]) -> None:
        self._keys = keys
        self._lock = threading.Lock()
        self._asked: dict[str, deque[float]] = {key.name: deque() for key in keys}

    @property
    def is_open(self) -> bool:
        """Whether nobody needs a key."""
        return not self._keys

    def key(self, given: str | None) -> ApiKey | None:
        """Return the key that was given; None where it is none. Every key is compared, in constant time."""
        found = None
        told = hashed(given or "")
        for key in self._keys:
            if hmac.compare_digest(told, key.sha256) and given:
                found = key
        return found

    def wait(self, key: ApiKey) -> float:
        """Count a request, and return 0; or the seconds until the key may ask again."""
        if key.per_minute is None:
            return 0.0
        now = time.monotonic()
        with self._lock:
            asked = self._asked[key.name]
            while asked and asked[0] <= now - MINUTE:
                asked.popleft()
            if len(asked) >= key.per_minute:
                return asked[0] + MINUTE - now
            asked.append(now)
            return 0.0
