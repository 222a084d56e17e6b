"""The API process's settings: where it listens, and how much it takes from callers at a time."""

from typing import Annotated, Final

from pydantic import Field
from pydantic_settings import NoDecode

from app.kernel.quota_settings import QuotaSettings

LONGEST_DAYS: Final = 36_500
"""A hundred years. A longer time, such as 999999 for "forever", would give an invalid date in tidying."""


class ApiSettings(QuotaSettings):
    api_host: str = Field("127.0.0.1", description="Address the API listens on.")
    api_port: int = Field(8000, ge=1, le=65535, description="Port the API listens on.")
    shutdown_pause_s: float | None = Field(
        None,
        ge=0,
        le=600,
        description="Seconds an API process answers `/readyz` with 503 after SIGTERM before it stops "
        "listening, so that a load balancer sends nobody there any more. Empty: 5 in production, else 0.",
    )
    public_url: str | None = Field(
        None, description="Where callers reach the API; used in `type` links of problem details."
    )
    max_body_bytes: int = Field(
        64 * 1024 * 1024,
        ge=1024,
        description="Largest body of an order in bytes. 10,000 devices with hashes are about 43 MB. Other "
        "calls may have 64 kB, or 512 kB where they carry lists; files have limits of their own.",
    )
    large_bodies: int = Field(
        4,
        ge=1,
        le=100,
        description="Bodies over 512 kB that one API process reads and decodes at the same time; others wait "
        "for up to 30 seconds. Each takes up to twice its size in memory.",
    )
    large_bodies_per_partner: int = Field(
        2,
        ge=1,
        le=100,
        description="How many of those may belong to one partner. Its other bodies wait and let those of "
        "other partners pass.",
    )
    max_head_bytes: int = Field(
        64 * 1024,
        ge=1024,
        description="Largest request line with its headers, in bytes; more is answered 431.",
    )
    head_timeout_s: float = Field(
        10, gt=0, description="Seconds a request line and its headers may take to arrive."
    )
    min_body_rate: float = Field(
        1000,
        gt=0,
        description="Bytes per second that a body must bring at least; a slower one is answered 408.",
    )
    body_window_s: float = Field(
        20, gt=0, description="Seconds of each period over which REGISTRAR_MIN_BODY_RATE is measured."
    )
    answer_timeout_s: float = Field(
        60, gt=0, description="Seconds a caller may leave an answer unread before its connection is cut."
    )
    max_connections: int = Field(
        2000,
        ge=1,
        description="Connections that one API process keeps open at most. Then a new one takes the place of "
        "one that has no call under way; if there is none, it is answered 503.",
    )
    max_connections_per_client: int = Field(
        200,
        ge=1,
        description="How many of those may come from one address (IPv6: one /64). Trusted proxies are "
        "exempt.",
    )
    bounded_by_proxy: bool = Field(
        False,
        description="Whether a proxy in front bounds connections, request heads and slow bodies. Only then "
        "production serves the API with anything else than `registrar api`, such as uvicorn alone.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Networks of the proxies in front of the API, as CIDR separated by commas. "
        "`X-Forwarded-For` is believed only from them: it is the client in the log and in the limits per "
        "address. Empty: no proxy.",
    )
    wrong_keys_per_minute: int = Field(
        30,
        ge=0,
        description="Calls with a wrong API key from one address (IPv6: one /64) that are answered 401 in a "
        "minute; more are answered 429. 0: any number.",
    )
    documentation: bool | None = Field(
        None,
        description="Whether `/docs` and `/redoc` are served; `/openapi.json` always is. "
        "Empty: yes, except in production.",
    )
    max_import_bytes: int = Field(
        4_000_000_000,
        ge=1024,
        description="Largest file of an import in bytes, as it is sent. Disk of PostgreSQL, not memory.",
    )
    requests_per_minute: int = Field(
        3000,
        ge=0,
        description="Calls that one API key may make in a minute, at all API processes together; more are "
        "answered 429. 0: any number.",
    )
    database_pool_size: int = Field(
        10,
        ge=2,
        description="Database connections each process keeps open at most. One partner can never hold the "
        "last two. The API's intake process keeps up to 5 more.",
    )
    calls_at_once: int = Field(
        128, ge=1, description="Calls that one API process works on at the same time, of all partners."
    )
    calls_at_once_per_partner: int = Field(
        4,
        ge=1,
        description="Calls of one partner that one API process works on at the same time. Its other calls "
        "wait in a line of their own. While other partners call, half as many, and a place stays empty after "
        "each call for as long as the call took. Of an upload only the beginning counts.",
    )
    calls_waiting_per_partner: int = Field(
        64,
        ge=0,
        description="Calls of one partner that may wait for their turn in one API process; more are answered "
        "429.",
    )
    call_patience_s: float = Field(
        30, gt=0, description="Seconds a call waits for its turn before it is answered 503."
    )
    read_timeout_s: float = Field(
        5,
        ge=0.1,
        description="Seconds that one SQL statement of a call that only reads may take. Then it is "
        "cancelled, and the call is answered 503 with the advice to ask for less.",
    )
    heavy_calls_at_once: int = Field(
        2,
        ge=1,
        description="Large orders and large pages that one API process works on at the same time. One "
        "partner gets all but one of these turns, but at least one.",
    )
    idempotency_hours: float = Field(
        72,
        ge=1,
        le=LONGEST_DAYS * 24,
        description="Hours an Idempotency-Key is remembered: a long weekend of an order system.",
    )
