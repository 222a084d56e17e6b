"""Settings from the environment: known `REGISTRAR_...` names, secrets from files, one line per fault.

A misspelt name would silently leave the default in place, so it is refused with the nearest right one.
No message quotes a value: it may be a secret.
"""

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

PREFIX: Final = "REGISTRAR_"
PLATFORM_PREFIX: Final = "REGISTRAR_PLATFORM_"
"""Settings of one platform, which reads and checks them itself."""
FILE_ENDING: Final = "_FILE"
LARGEST_SECRET: Final = 64 * 1024
"""The most bytes of a secret's file: a wrong path may lead to anything."""

COMMAND_LINE_NAMES: Final = frozenset({"REGISTRAR_API_KEY", "REGISTRAR_API_URL", "REGISTRAR_PROFILE"})
"""Read only by the command line. A test compares them with its options."""

RETIRED_NAMES: Final = frozenset({"REGISTRAR_GRAPH_URL"})
"""Settings of earlier releases that nothing reads any more: ignored, so that upgrades are not refused."""

_SERVICE_LINK: Final = re.compile(
    r"REGISTRAR_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
"""Variables that Kubernetes sets in every container for a Service named `registrar` or `registrar-...`."""
_SERVICE_ADDRESS: Final = re.compile(r"(?:tcp|udp|sctp)://")


class SettingsRefused(ValueError):
    """The settings cannot be used. Each of `lines` names one fault, never a value."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("\n".join(self.lines))


def given(
    environment: Mapping[str, str], fields: Collection[str], secrets: Collection[str]
) -> dict[str, str]:
    """Returns the environment's values for `fields`; those of `secrets` may also be in files.

    Raises SettingsRefused for an unknown name, or for a secret's file that cannot be used.
    """
    names = {_name(field): field for field in fields}
    files = {_name(field) + FILE_ENDING: field for field in secrets}
    ours = _ours(environment)
    faults = unknown_names(environment, fields, secrets)
    values = {field: ours[name] for name, field in names.items() if name in ours}
    for name, field in files.items():
        if not ours.get(name):
            continue
        if values.get(field):
            faults.append(f"{name} and {_name(field)} are both set: use one of them.")
            continue
        try:
            values[field] = _secret_in(Path(ours[name]))
        except (OSError, ValueError) as error:
            faults.append(f"{name}: the file cannot be used: {_reason(error)}.")
    if faults:
        raise SettingsRefused(faults)
    return values


def unknown_names(environment: Mapping[str, str], fields: Iterable[str], secrets: Iterable[str]) -> list[str]:
    """A line for each `REGISTRAR_...` name that nothing here reads, with the nearest name that is read."""
    files = {_name(field) + FILE_ENDING for field in secrets}
    known = {*map(_name, fields), *files, *COMMAND_LINE_NAMES}
    return list(_unknown(set(_ours(environment)) - RETIRED_NAMES, known))


def _ours(environment: Mapping[str, str]) -> dict[str, str]:
    found = {key.upper(): value for key, value in environment.items() if _is_ours(key.upper())}
    return {name: value for name, value in found.items() if not _is_service_link(name, value)}


def _is_ours(name: str) -> bool:
    return name.startswith(PREFIX) and not name.startswith(PLATFORM_PREFIX)


def _name(field: str) -> str:
    return PREFIX + field.upper()


def _is_service_link(name: str, value: str) -> bool:
    if _SERVICE_LINK.fullmatch(name):
        return True
    return name.endswith("_PORT") and _SERVICE_ADDRESS.match(value) is not None


def _unknown(ours: Iterable[str], known: Collection[str]) -> Iterator[str]:
    endings = sorted(name.removeprefix(PREFIX) for name in known)  # the prefix is like all of them
    for name in sorted(set(ours) - set(known)):
        nearest = difflib.get_close_matches(name.removeprefix(PREFIX), endings, n=1)
        if nearest:
            yield f"{name}: there is no such setting; did you mean {PREFIX}{nearest[0]}?"
        else:
            yield f"{name}: there is no such setting; deploy/env.example lists all of them."


def _secret_in(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(LARGEST_SECRET + 1)
    if len(content) > LARGEST_SECRET:
        raise ValueError(f"it has more than {LARGEST_SECRET:,} bytes")
    try:
        text = content.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    if not text.strip():
        raise ValueError("it is empty")
    return text


def _reason(error: OSError | ValueError) -> str:
    """The reason in words, without the path: the setting's name leads to it."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error)
