"""Every setting, with what it means, its unit, and the checks between them.

Read once at start from the environment (prefix `REGISTRAR_`) by `load`, frozen, and passed down;
nothing reads the environment later. A combination that would lose or repeat work is refused at start
with the reason.
"""

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from datetime import timedelta
from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from app.domain.address import Allowance
from app.kernel import transport
from app.kernel.api_settings import LONGEST_DAYS, ApiSettings
from app.kernel.environment import PREFIX, SettingsRefused, given


class Environment(StrEnum):
    DEVELOPMENT = "development"
    PRODUCTION = "production"


class LogFormat(StrEnum):
    JSON = "json"
    TEXT = "text"


MICROSOFT_HOSTS = {
    "partner_center_url": frozenset({"api.partnercenter.microsoft.com"}),
    "login_url": frozenset({"login.microsoftonline.com"}),
}


MISSED_BEATS = 4
"""Heartbeats that a worker may miss before it counts as dead."""


SECRET_SETTINGS: Final = ("database_url", "migration_database_url", "redis_url", "secret_keys")
"""Settings whose value may be in a file, named by the setting's name with `_FILE`."""

SECRET_KEY_BYTES: Final = 32
SHUTDOWN_PAUSE_S: Final = 5.0
"""In production: two health checks of a load balancer that checks every two seconds."""


class Settings(ApiSettings):
    """The settings; each key is `REGISTRAR_` + its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="REGISTRAR_", frozen=True, extra="ignore")

    environment: Environment = Field(
        Environment.DEVELOPMENT,
        description="`production` refuses other hosts than Microsoft's, embedded databases "
        "and generated keys.",
    )
    database_url: str | None = Field(
        None,
        description="PostgreSQL 15 or newer, as postgresql://user:password@host/database, with libpq's "
        "parameters such as ?sslmode=verify-full&sslrootcert=/etc/registrar/ca.pem. "
        "Empty: PostgreSQL from its wheel, in the data directory.",
    )
    migration_database_url: str | None = Field(
        None,
        description="PostgreSQL login that owns the tables, for migrations only. Empty: database_url.",
    )
    redis_url: str | None = Field(
        None,
        description="Redis 7 or Valkey 8 or newer; rediss:// encrypts. Holds wake-ups, throttle budgets and "
        "counts of calls only: losing it loses no work. Empty: Valkey from its wheel, in the data directory.",
    )
    allow_clear_text: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Servers that production may reach over a network without TLS, separated by commas: "
        "postgresql, redis. Only for a network that nobody else can use. Empty: none.",
    )
    more_platforms: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Python packages with further platforms, separated by commas: each module in them is one "
        "(CONTRIBUTING.md). API and workers need the same. Empty: none.",
    )
    data_dir: Path = Field(
        Path("data"),
        description="Directory of the embedded databases and of the generated secret key.",
    )
    spool_dir: Path | None = Field(
        None,
        description="Directory on a disk for what is too big for memory while a file is read: a workbook, "
        "and the texts in it. Empty: `spool` in the data directory with the embedded PostgreSQL, else the "
        "system's directory for temporary files (TMPDIR). deploy/compose.yaml has a volume for it.",
    )
    max_spool_bytes: int = Field(
        1024**3,
        ge=1024**2,
        description="Bytes of disk that one workbook and its texts may take in REGISTRAR_SPOOL_DIR while it "
        "is read. A larger one is refused; CSV takes none.",
    )
    durable: bool = Field(
        True, description="Whether the embedded PostgreSQL waits for the disk. Only tests say no."
    )
    secret_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        description="Keys that protect credentials at rest: 32 bytes in base64 each, separated by commas. "
        "The first one encrypts, all decrypt. Empty: one is generated in the data directory.",
    )
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR.")
    log_format: LogFormat = Field(LogFormat.JSON, description="`json` for machines, `text` for people.")

    partner_center_url: str = Field(
        "https://api.partnercenter.microsoft.com", description="Base URL of Partner Center's API."
    )
    login_url: str = Field(
        "https://login.microsoftonline.com", description="Base URL of the Entra token service."
    )
    upstream_timeout_s: float = Field(
        60, gt=0, description="Seconds one call to Microsoft may take in all before its outcome is unknown."
    )
    step_timeout_s: float = Field(
        90, gt=0, description="Seconds one step of a batch may take: a few calls and their records."
    )
    lease_s: float = Field(
        120, gt=0, description="Seconds a claim of a batch or delivery lasts; longer than any step."
    )
    sweep_patience_s: float = Field(
        240,
        gt=0,
        description="Seconds a batch may be without progress before the sweep reports it as stuck.",
    )
    sweep_interval_s: int = Field(
        5, ge=1, le=60, description="Seconds between looks for work whose wake-up was lost."
    )
    poll_first_s: float = Field(1.0, gt=0, description="Seconds until the first status poll.")
    poll_factor: float = Field(1.6, ge=1, description="Growth of the pause between polls.")
    poll_ceiling_s: float = Field(60, gt=0, description="Longest pause between polls, in seconds.")
    poll_deadline_s: float = Field(
        3600,
        gt=0,
        description="Seconds after which an unfinished job is looked up in the device listing instead.",
    )
    max_batch_devices: int = Field(
        1000,
        ge=1,
        le=1000,
        description="Devices in one call (and in one portal file) at most, where the platform does not take "
        "fewer. Microsoft documents no limit for a call; its portal's file is limited to 500 devices.",
    )
    job_appears_s: float = Field(
        600,
        ge=0,
        description="Seconds after an accepted upload in which a 404 for its job means: not yet. Microsoft "
        "documents no time; its sample of a whole job takes ten minutes.",
    )
    max_submissions: int = Field(
        8,
        ge=1,
        description="Answered but unclear submissions of one batch before its outcome is looked up instead.",
    )
    lookup_attempts: int = Field(
        3, ge=1, description="Looks into the device listing, before and again after one repetition."
    )
    send_serial_with_hash: bool = Field(
        True,
        description="Whether the serial number inside a hash is sent along with it. Microsoft echoes no "
        "key for hash-only devices; with it, answers are matched by key instead of by position.",
    )
    lookup_pages: int = Field(200, ge=1, description="Pages of 100 devices that one look may read at most.")
    customer_window: int = Field(
        4, ge=1, description="Batches of one customer that are under way at the same time at most."
    )
    connection_window: int = Field(
        32, ge=1, description="Batches of one connection that are under way at the same time at most."
    )
    budget_start: float = Field(
        5,
        gt=0,
        description="Calls per second with which a connection begins. Microsoft names 500 a minute for its "
        "customer and order resources, and no figure for devices.",
    )
    budget_floor: float = Field(
        0.2, gt=0, description="Calls per second a connection keeps, however often Microsoft throttles it."
    )
    budget_ceiling: float = Field(50, gt=0, description="Calls per second of one connection at most.")
    breaker_failures: int = Field(
        5, ge=1, description="Calls of a connection in a row without a usable answer that open its breaker."
    )
    breaker_pause_s: float = Field(
        5, gt=0, description="Seconds until an open breaker lets one call try; doubled when that fails."
    )
    breaker_ceiling_s: float = Field(
        60, gt=0, description="Longest pause between the tries of an open breaker, in seconds."
    )
    worker_lanes: int = Field(8, ge=1, description="Batches one worker process advances at the same time.")
    delivery_lanes: int = Field(8, ge=1, description="Webhooks one worker process sends at the same time.")
    import_lanes: int = Field(
        1,
        ge=1,
        description="Imports one worker process reads at the same time, and the most that it has open for "
        "one partner. In all it has up to four times as many open, and four more. They take turns, so that a "
        "small file does not wait for the end of a large one.",
    )
    import_retention_days: float = Field(
        7,
        gt=0,
        le=LONGEST_DAYS,
        description="Days until an import expires: its rows are deleted, its orders stay.",
    )
    metrics_allowed_networks: Annotated[tuple[str, ...], NoDecode] = Field(
        ("127.0.0.0/8", "::1/128"),
        description="Networks that may read `/metrics` at the API's port without a key, as CIDR separated by "
        "commas. A call that came through a proxy is refused. Empty: nobody may.",
    )
    worker_metrics_port: int | None = Field(
        None, ge=1, le=65535, description="Port of a worker's `/metrics`. Empty: it has none."
    )
    worker_metrics_host: str = Field("127.0.0.1", description="Address of a worker's `/metrics`.")
    worker_alive_file: Path | None = Field(
        None,
        description="File that a worker touches with every heartbeat, for `registrar worker --probe`. "
        "Empty: registrar-worker.alive in the system's directory for temporary files.",
    )
    heartbeat_s: float = Field(
        5,
        gt=0,
        description="Seconds between a worker's heartbeats, the same for all workers. After four that are "
        "missing it counts as dead, and others take up its work without waiting for the end of its leases.",
    )
    consent_interval_s: float = Field(
        300, gt=0, description="Seconds between readings of each connection's customers list."
    )
    consent_valid_days: float = Field(
        30,
        gt=0,
        le=LONGEST_DAYS,
        description="Days after which an unrenewed proof of consent is called stale.",
    )
    hash_retention_days: float = Field(
        30,
        ge=0,
        le=LONGEST_DAYS,
        description="Days the hash of a device that failed is kept for `:retry-failed`. "
        "Hashes of registered devices are deleted at once.",
    )
    event_retention_days: float = Field(
        90,
        gt=0,
        le=LONGEST_DAYS,
        description="Days events are kept, with their webhook deliveries and attempts. "
        "What still waits to be delivered is kept longer.",
    )
    import_record_retention_days: float = Field(
        90,
        gt=0,
        le=LONGEST_DAYS,
        description="Days a finished import can still be looked up, counted from when its rows were deleted. "
        "Its orders stay.",
    )
    ended_key_retention_days: float = Field(
        365,
        gt=0,
        le=LONGEST_DAYS,
        description="Days a revoked or expired API key stays listed. A key that an order or an import names "
        "as its author stays for as long as that is there.",
    )
    max_group_tag: int = Field(
        128, ge=1, description="Longest group tag. Microsoft publishes no limit; its tools stop at 128."
    )

    webhook_timeout_s: float = Field(15, gt=0, description="Seconds a receiver has to answer.")
    webhook_allow_http: bool = Field(
        False, description="Whether webhooks may go to plain http. Never in production."
    )
    webhook_allowed_networks: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Private networks that every partner's webhooks may go to, as CIDR separated by commas, "
        "each with a port or without (10.1.0.0/16:8443): for receivers on the premises. For one partner "
        "only: `registrar partner networks`.",
    )
    webhook_ca_file: Path | None = Field(
        None,
        description="PEM file of certificate authorities that webhooks trust besides the public ones: "
        "a company's own.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Reads the environment with `app.kernel.environment` instead of pydantic's own source."""
        values = given(os.environ, cls.model_fields, SECRET_SETTINGS)
        return init_settings, InitSettingsSource(settings_cls, init_kwargs=dict(values))

    @field_validator(
        "secret_keys",
        "webhook_allowed_networks",
        "metrics_allowed_networks",
        "trusted_proxies",
        "allow_clear_text",
        "more_platforms",
        mode="before",
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @field_validator(
        "database_url",
        "migration_database_url",
        "redis_url",
        "public_url",
        "documentation",
        "shutdown_pause_s",
        "spool_dir",
        "webhook_ca_file",
        "worker_alive_file",
        "worker_metrics_port",
        mode="before",
    )
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("log_level")
    @classmethod
    def _level(cls, value: str) -> str:
        if value.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
            raise ValueError("use DEBUG, INFO, WARNING or ERROR")
        return value.upper()

    @field_validator("database_url", "migration_database_url")
    @classmethod
    def _is_postgresql(cls, value: str | None) -> str | None:
        """Refuses mistakes that would otherwise show as a driver's error."""
        if value and not _has_scheme(value, "postgresql", "postgres"):
            raise ValueError(
                "this is not a PostgreSQL URL; it looks like postgresql://user:password@host/database"
            )
        if value and (faults := list(transport.postgresql_faults(value))):
            raise ValueError("; ".join(faults))
        return value

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: str | None) -> str | None:
        if value and not _has_scheme(value, "redis", "rediss", "unix"):
            raise ValueError("this is not a Redis URL; it looks like redis://user:password@host:6379/0")
        if value and (faults := list(transport.redis_faults(value))):
            raise ValueError("; ".join(faults))
        return value

    @field_validator("allow_clear_text")
    @classmethod
    def _are_servers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := set(value) - set(transport.CLEAR_TEXT_REFUSALS):
            raise ValueError(f"{', '.join(sorted(unknown))}: use postgresql, redis or both")
        return value

    @field_validator("secret_keys")
    @classmethod
    def _are_keys(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for key in value:
            try:
                size = len(base64.b64decode(key.get_secret_value().encode(), validate=True))
            except binascii.Error:
                raise ValueError("keys must be base64; `openssl rand -base64 32` makes one") from None
            if size != SECRET_KEY_BYTES:
                raise ValueError(
                    f"a secret key has {size} bytes; it needs {SECRET_KEY_BYTES}. "
                    "`openssl rand -base64 32` makes one"
                )
        return value

    @field_validator("webhook_allowed_networks")
    @classmethod
    def _allowances(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            Allowance.parse(network)
        return value

    @field_validator("metrics_allowed_networks", "trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ip_network(network)
        return value

    @field_validator("webhook_ca_file")
    @classmethod
    def _authorities(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            trust.load_verify_locations(cafile=value)
        except ssl.SSLError:
            raise ValueError(f"{value} is no PEM file of certificates") from None
        except OSError as error:
            raise ValueError(f"{value} cannot be read: {error.strerror}") from None
        return value

    @field_validator("partner_center_url", "login_url")
    @classmethod
    def _no_trailing_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @model_validator(mode="after")
    def _deadlines_nest(self) -> Self:
        twice = "work is claimed a second time while the first attempt is still running"
        ladder = (
            ("upstream_timeout_s", "step_timeout_s", twice),
            ("step_timeout_s", "lease_s", twice),
            ("lease_s", "sweep_patience_s", "work is reported as stuck while a worker is still at it"),
        )
        for shorter, longer, consequence in ladder:
            if getattr(self, shorter) >= getattr(self, longer):
                raise ValueError(
                    f"REGISTRAR_{shorter.upper()} ({getattr(self, shorter):g}) must be smaller than "
                    f"REGISTRAR_{longer.upper()} ({getattr(self, longer):g}): otherwise {consequence}"
                )
        if self.silence > self.lease:
            raise ValueError(
                "REGISTRAR_HEARTBEAT_S must be at most a quarter of REGISTRAR_LEASE_S: after four that are "
                "missing a worker counts as dead"
            )
        if self.webhook_timeout_s >= self.lease_s:
            raise ValueError("REGISTRAR_WEBHOOK_TIMEOUT_S must be smaller than REGISTRAR_LEASE_S")
        if self.sweep_interval_s >= self.sweep_patience_s:
            raise ValueError("REGISTRAR_SWEEP_INTERVAL_S must be smaller than REGISTRAR_SWEEP_PATIENCE_S")
        if self.poll_ceiling_s >= self.poll_deadline_s:
            raise ValueError("REGISTRAR_POLL_CEILING_S must be smaller than REGISTRAR_POLL_DEADLINE_S")
        return self

    @model_validator(mode="after")
    def _bounds_nest(self) -> Self:
        for lower, higher in (
            ("budget_floor", "budget_start"),
            ("budget_start", "budget_ceiling"),
            ("breaker_pause_s", "breaker_ceiling_s"),
            ("poll_first_s", "poll_ceiling_s"),
        ):
            if getattr(self, lower) > getattr(self, higher):
                raise ValueError(
                    f"REGISTRAR_{lower.upper()} ({getattr(self, lower):g}) must not be larger than "
                    f"REGISTRAR_{higher.upper()} ({getattr(self, higher):g})"
                )
        return self

    @model_validator(mode="after")
    def _production_is_strict(self) -> Self:
        if self.environment is not Environment.PRODUCTION:
            return self
        for name, hosts in MICROSOFT_HOSTS.items():
            url = urlsplit(getattr(self, name))
            if url.scheme != "https" or url.hostname not in hosts:
                raise ValueError(
                    f"REGISTRAR_{name.upper()} must be https at {' or '.join(sorted(hosts))} in production"
                )
        missing = [
            f"REGISTRAR_{name.upper()}"
            for name in ("database_url", "redis_url", "secret_keys")
            if not getattr(self, name)
        ]
        if missing:
            raise ValueError(f"production needs {', '.join(missing)}")
        if self.webhook_allow_http:
            raise ValueError("REGISTRAR_WEBHOOK_ALLOW_HTTP must stay off in production")
        for network in map(Allowance.parse, self.webhook_allowed_networks):
            if network.inward is not None:
                raise ValueError(
                    f"REGISTRAR_WEBHOOK_ALLOWED_NETWORKS: {network} has {network.inward} in it, "
                    "which no webhook may reach in production"
                )
        databases = (self.database_url, self.migration_database_url)
        if refusal := transport.clear_text_refusal(databases, self.redis_url, self.allow_clear_text):
            raise ValueError(refusal)
        return self

    @property
    def logging(self) -> dict[str, Any]:
        """The arguments of `telemetry.configure`."""
        return {"level": self.log_level, "as_json": self.log_format is LogFormat.JSON}

    @property
    def shutdown_pause(self) -> float:
        if self.shutdown_pause_s is not None:
            return self.shutdown_pause_s
        return SHUTDOWN_PAUSE_S if self.environment is Environment.PRODUCTION else 0

    @property
    def has_documentation(self) -> bool:
        if self.documentation is not None:
            return self.documentation
        return self.environment is not Environment.PRODUCTION

    @property
    def alive_file(self) -> Path:
        return self.worker_alive_file or Path(tempfile.gettempdir()) / "registrar-worker.alive"

    @property
    def spool(self) -> Path | None:
        """The directory of large files while they are read; None: the system's for temporary files."""
        if self.spool_dir is not None:
            return self.spool_dir
        return self.data_dir / "spool" if self.database_url is None else None

    @property
    def import_places(self) -> int:
        """The most imports that one worker process has open; they take turns on its `import_lanes`."""
        return 4 * self.import_lanes + 4

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.lease_s)

    @property
    def silence(self) -> timedelta:
        """How long a worker may be silent before it counts as dead."""
        return timedelta(seconds=self.heartbeat_s * MISSED_BEATS)


def load(environment: Mapping[str, str] | None = None) -> Settings:
    """Reads the settings of this process's environment, or of the given one. Every entry point calls this.

    Raises SettingsRefused naming every fault, and never a value.
    """
    values: dict[str, Any] = {}
    if environment is not None:
        values |= given(environment, Settings.model_fields, SECRET_SETTINGS)
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsRefused(_faults(error)) from None


def load_or_exit() -> Settings:
    """Reads the settings, or prints one line for each fault and exits with 1."""
    try:
        return load()
    except SettingsRefused as refused:
        raise SystemExit(str(refused)) from None


def _faults(error: ValidationError) -> Iterator[str]:
    for part in error.errors(include_input=False, include_context=False, include_url=False):
        words = part["msg"].removeprefix("Value error, ")
        name = PREFIX + str(part["loc"][0]).upper() if part["loc"] else ""
        yield f"{name}: {words}" if name else words


def _has_scheme(url: str, *schemes: str) -> bool:
    """Whether it is a URL of one of these schemes, and its port, if any, a number."""
    try:
        parts = urlsplit(url)
        return parts.scheme.partition("+")[0] in schemes and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
