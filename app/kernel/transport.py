"""Checks of the PostgreSQL and Redis URLs, above all for encryption, read as libpq and redis-py do.

Imports no driver. The settings refuse here what would otherwise fail later with a driver's error, or would
send passwords and devices over a network in clear text.
"""

import os
import ssl
from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
"""libpq's modes, the weakest first."""
ENCRYPTED: Final = frozenset({"require", "verify-ca", "verify-full"})
SYSTEM: Final = "system"
"""`sslrootcert=system`: the certificate authorities of this machine."""

TLS_PARAMETERS: Final = (
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslcrl",
    "sslnegotiation",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
)
PASSED_ON: Final = frozenset(
    {"host", "port", "user", "password", "database", "passfile", "target_session_attrs"}
)
"""Parameters that the driver takes under the same name."""
WITHOUT_EFFECT: Final = {
    "application_name": None,
    "channel_binding": ("disable", "prefer"),
    "client_encoding": None,
    "fallback_application_name": None,
    "gssencmode": ("disable", "prefer"),
    "keepalives": None,
    "keepalives_count": None,
    "keepalives_idle": None,
    "keepalives_interval": None,
    "sslcertmode": ("allow",),
    "sslcompression": ("0",),
    "sslsni": ("1",),
    "tcp_user_timeout": None,
}
"""libpq's parameters without effect here, each with its allowed values (None: any value)."""
OTHERS: Final = frozenset({"ssl", "connect_timeout", "options"})
POSTGRESQL_PARAMETERS: Final = frozenset({*TLS_PARAMETERS, *PASSED_ON, *WITHOUT_EFFECT, *OTHERS})

CLEAR_TEXT_REFUSALS: Final = {
    "postgresql": "production does not speak to PostgreSQL in clear text: add sslmode=verify-full and "
    "sslrootcert= (or at least sslmode=require) to REGISTRAR_DATABASE_URL and "
    "REGISTRAR_MIGRATION_DATABASE_URL; "
    "for a network that nobody else can use, set REGISTRAR_ALLOW_CLEAR_TEXT=postgresql",
    "redis": "production does not speak to Redis in clear text: use rediss:// in REGISTRAR_REDIS_URL; "
    "for a network that nobody else can use, set REGISTRAR_ALLOW_CLEAR_TEXT=redis",
}

TRUE: Final = frozenset({"1", "on", "true", "yes"})


def parameters(url: str) -> dict[str, str]:
    """The parameters of the URL's query; of a repeated name, the last value."""
    found = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
    if (short := found.pop("ssl", None)) is not None:
        found.setdefault("sslmode", "require" if short.lower() in TRUE else short)
    return found


def tls_parameters(url: str) -> dict[str, str]:
    """The parameters for encryption."""
    return {name: value for name, value in parameters(url).items() if name in TLS_PARAMETERS and value}


def _stated(url: str, name: str, environment: Mapping[str, str]) -> str | None:
    """A parameter of the URL, otherwise libpq's environment variable for it."""
    return tls_parameters(url).get(name) or environment.get(f"PG{name.upper()}") or None


def ssl_mode(url: str, environment: Mapping[str, str] = os.environ) -> str:
    """The stated mode, or libpq's default: `prefer`, with the system's authorities `verify-full`."""
    stated = _stated(url, "sslmode", environment)
    return stated or ("verify-full" if trusts_system(url, environment) else "prefer")


def trusts_system(url: str, environment: Mapping[str, str] = os.environ) -> bool:
    return _stated(url, "sslrootcert", environment) == SYSTEM


def postgresql_faults(url: str, environment: Mapping[str, str] = os.environ) -> Iterator[str]:
    """What to change in the URL, one sentence each, without any value that may be secret."""
    for name, value in parameters(url).items():
        if name not in POSTGRESQL_PARAMETERS:
            yield f"{name}= is not a parameter that Registrar knows: remove it"
        elif (harmless := WITHOUT_EFFECT.get(name)) is not None and value not in harmless:
            yield f"{name}={value} is not supported: remove it; sslmode=verify-full verifies the server"
    mode = ssl_mode(url, environment)
    if mode not in SSL_MODES:
        yield f"sslmode={mode} does not exist: use one of {', '.join(SSL_MODES)}"
    elif trusts_system(url, environment) and mode != "verify-full":
        yield f"sslmode={mode} is too weak for sslrootcert=system: use sslmode=verify-full"
    elif mode != "disable":
        yield from _file_faults(url, environment, mode)


def _file_faults(url: str, environment: Mapping[str, str], mode: str) -> Iterator[str]:
    home = Path.home() / ".postgresql"
    root = _stated(url, "sslrootcert", environment)
    if mode.startswith("verify") and root is None and not (home / "root.crt").exists():
        yield (
            f"sslmode={mode} needs the certificate authority of the server: add sslrootcert= with its "
            "PEM file, or sslrootcert=system"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name, path in (("sslrootcert", root), ("sslcrl", _stated(url, "sslcrl", environment))):
        if path is not None and path != SYSTEM:
            try:
                context.load_verify_locations(cafile=path)
            except OSError as error:  # an SSLError is one
                yield f"{name}={path} is no PEM file that can be read{_reason(error)}"
    certificate, key = (_stated(url, name, environment) for name in ("sslcert", "sslkey"))
    if certificate is not None:
        password = tls_parameters(url).get("sslpassword", "")
        key = key or _default_key()
        try:
            context.load_cert_chain(certificate, key, password=lambda: password)
        except OSError as error:
            with_key = f" and sslkey={key}" if key else ", without sslkey=,"
            yield f"sslcert={certificate}{with_key} are no certificate with its key{_reason(error)}"


def _default_key() -> str | None:
    """libpq's default key file, if it exists; a certificate's file may also contain its key."""
    place = Path.home() / ".postgresql/postgresql.key"
    return str(place) if place.exists() else None


def _reason(error: OSError) -> str:
    return "" if isinstance(error, ssl.SSLError) else f": {error.strerror}"


def system_context(url: str) -> ssl.SSLContext:
    """The TLS context for `sslrootcert=system`, which the driver lacks. Verifies certificate and name."""
    context = ssl.create_default_context()
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
    wanted = tls_parameters(url)
    for bound, name in (("minimum_version", "min"), ("maximum_version", "max")):
        if version := wanted.get(f"ssl_{name}_protocol_version"):
            setattr(context, bound, ssl.TLSVersion[version.replace(".", "_").replace("TLSv1_0", "TLSv1")])
    if certificate := _stated(url, "sslcert", os.environ):
        key = _stated(url, "sslkey", os.environ) or _default_key()
        context.load_cert_chain(certificate, key, password=lambda: wanted.get("sslpassword", ""))
    return context


def is_local(host: str) -> bool:
    """Whether connections to it stay on this machine: a socket's directory, or a loopback address."""
    if not host or host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _postgresql_hosts(url: str, environment: Mapping[str, str]) -> list[str]:
    named = [value for name, value in parse_qsl(urlsplit(url).query) if name == "host"]
    hosts = [host for value in named for host in value.split(",")]
    hosts = hosts or [urlsplit(url).hostname or environment.get("PGHOST") or ""]
    return [_without_port(unquote(host)) for host in hosts]


def _without_port(host: str) -> str:
    return host if host.startswith("/") or host.count(":") != 1 else host.partition(":")[0]


def postgresql_in_clear_text(url: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether passwords and rows may cross a network unencrypted. With `prefer` and `allow` they may: a
    server, or an attacker in between, only has to claim that it has no encryption."""
    if ssl_mode(url, environment) in ENCRYPTED:
        return False
    return not all(is_local(host) for host in _postgresql_hosts(url, environment))


def redis_in_clear_text(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "redis" and not is_local(unquote(parts.hostname or ""))


def redis_tls(url: str) -> dict[str, Any]:
    """redis-py's arguments for a `rediss://` URL. The server's name is verified unless it says otherwise."""
    if urlsplit(url).scheme != "rediss":
        return {}
    said = dict(parse_qsl(urlsplit(url).query))
    found: dict[str, Any] = {
        name: value
        for name, value in said.items()
        if name.startswith("ssl_") and name != "ssl_check_hostname"
    }
    verifies = said.get("ssl_cert_reqs", "required").lower() not in {"none", "optional"}
    wanted = said.get("ssl_check_hostname", "true" if verifies else "false").lower()
    found["ssl_check_hostname"] = wanted in TRUE
    return found


def redis_faults(url: str) -> Iterator[str]:
    """Faults of the files that a `rediss://` URL names. Without this check Redis would only seem down."""
    said = redis_tls(url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if authorities := said.get("ssl_ca_certs"):
        try:
            context.load_verify_locations(cafile=authorities)
        except OSError as error:  # an SSLError is one
            yield f"ssl_ca_certs={authorities} is no PEM file that can be read{_reason(error)}"
    if certificate := said.get("ssl_certfile"):
        try:
            context.load_cert_chain(certificate, said.get("ssl_keyfile"), said.get("ssl_password") or "")
        except OSError as error:
            yield f"ssl_certfile={certificate} is no certificate with its key{_reason(error)}"


def clear_text_refusal(
    databases: Iterable[str | None], redis_url: str | None, allowed: Collection[str]
) -> str | None:
    """What to change so that nothing crosses a network in clear text; None if nothing does."""
    in_clear_text = {
        "postgresql": any(url and postgresql_in_clear_text(url) for url in databases),
        "redis": bool(redis_url) and redis_in_clear_text(str(redis_url)),
    }
    refused = (server for server, is_so in in_clear_text.items() if is_so and server not in allowed)
    return next((CLEAR_TEXT_REFUSALS[server] for server in refused), None)
