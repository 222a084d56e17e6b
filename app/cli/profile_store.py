"""The file of profiles: named installations of Registrar, each with its address and key.

It is `registrar/profiles.toml` in the user's configuration folder, readable for that user only. A file that
others can read is refused, because it holds keys.
"""

import json
import os
import re
import stat
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from app.cli.outcome import Stop

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Profile:
    url: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Profiles:
    by_name: Mapping[str, Profile] = field(default_factory=dict)
    used: str | None = None
    """The profile that is used when none is named."""

    def named(self, name: str) -> Profile:
        """Raises Stop when there is none."""
        if name in self.by_name:
            return self.by_name[name]
        known = ", ".join(self.by_name) or "none"
        raise Stop(
            f"There is no profile '{name}'.",
            f"There are: {known}. `registrar profile add {name}` adds it.",
            error_code="name_not_found",
        )


def path() -> Path:
    folder = os.environ.get("XDG_CONFIG_HOME")
    return (Path(folder) if folder else Path.home() / ".config") / "registrar" / "profiles.toml"


def load() -> Profiles:
    """Empty when there is no file. Raises Stop if others can read it, or it is not a file of profiles."""
    file = path()
    try:
        with file.open("rb") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            if mode & 0o077:
                raise _unusable(
                    f"{file} has keys, and others can read it (mode {mode:03o}).", f"Use `chmod 600 {file}`."
                )
            return _profiles(tomllib.load(stream), file)
    except (FileNotFoundError, NotADirectoryError):
        return Profiles()
    except OSError as error:
        raise _unusable(f"{file} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        # The parser's message may quote the line, which may hold a key.
        raise _unusable(
            f"{file} is not TOML.", "Correct it, or delete it and add the profiles again."
        ) from None


def _profiles(document: Mapping[str, Any], file: Path) -> Profiles:
    used, tables = document.get("use"), document.get("profiles", {})
    if not isinstance(tables, dict) or not (used is None or isinstance(used, str)):
        raise _unusable(f"{file} is not a file of profiles.")
    found = {}
    for name, table in tables.items():
        url, key = (table.get(part) for part in ("url", "key")) if isinstance(table, dict) else (None, None)
        if not isinstance(url, str) or not isinstance(key, str):
            raise _unusable(f"The profile '{name}' in {file} lacks its url or its key.")
        found[name] = Profile(url, key)
    return Profiles(found, used if used in found else None)


def save(profiles: Profiles) -> None:
    """Replaces the whole file. Only its owner may read it."""
    file = path()
    lines = [] if profiles.used is None else [f"use = {_text(profiles.used)}"]
    for name, profile in profiles.by_name.items():
        lines += [
            "",
            f"[profiles.{_text(name)}]",
            f"url = {_text(profile.url)}",
            f"key = {_text(profile.key)}",
        ]
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Mode 0600 from its first byte.
        descriptor, written = tempfile.mkstemp(dir=file.parent, prefix=".profiles-")
        try:
            with os.fdopen(descriptor, "w") as stream:
                stream.write("\n".join(lines).lstrip("\n") + "\n")
            Path(written).replace(file)
        finally:
            Path(written).unlink(missing_ok=True)
    except OSError as error:
        raise _unusable(f"{file} cannot be written: {error.strerror}.") from None


def _text(value: str) -> str:
    """A TOML string. TOML has all of JSON's escapes."""
    return json.dumps(value)


def _unusable(words: str, *advice: str) -> Stop:
    return Stop(words, *advice, error_code="profile_unusable")
