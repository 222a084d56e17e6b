"""Quotas: how much one partner may have at a time, with their descriptions and defaults.

A quota limits what a caller can create. Its default is the setting `REGISTRAR_QUOTA_<NAME>`; the operator can
set another limit for one partner. A refusal names the quota, its limit and its use.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Quota(StrEnum):
    DEVICES = "devices"
    CUSTOMERS = "customers"
    CONNECTIONS = "connections"
    WEBHOOK_ENDPOINTS = "webhook_endpoints"
    WAITING_EVENTS = "waiting_events"
    VENDOR_PROFILES = "vendor_profiles"
    API_KEYS = "api_keys"
    UPLOADS = "uploads"
    WAITING_IMPORTS = "waiting_imports"
    STAGED_ROWS = "staged_rows"
    STAGED_BYTES = "staged_bytes"
    IDEMPOTENCY_ANSWERS = "idempotency_answers"


@dataclass(frozen=True, slots=True)
class Terms:
    """A quota's default and its texts."""

    noun: str
    """The plural, as it follows a number."""
    counts: str
    """What is counted, as a sentence."""
    default: int
    remedy: str
    """What the caller can do, besides asking the operator."""
    retry_after: int | None = None
    """Seconds to wait if the use decreases by itself; None if it does not."""
    refuses: bool = True
    """False: nothing is refused. Each endpoint has a share of the waiting deliveries, and those over it are
    ended (`app/services/operations/backlogs.py`)."""


QUOTAS: Final[dict[Quota, Terms]] = {
    Quota.DEVICES: Terms(
        "devices ordered", "Devices of all orders, in any state.", 100_000_000,
        "Nothing of the order was stored; send it again once the quota is raised.",
    ),
    Quota.CUSTOMERS: Terms(
        "customers", "Customers of all connections.", 100_000, "Remove customers that are not used."
    ),
    Quota.CONNECTIONS: Terms(
        "connections", "Connections to any platform.", 1_000,
        "Remove connections that are not used.",
    ),
    Quota.WEBHOOK_ENDPOINTS: Terms(
        "webhook endpoints", "Webhook endpoints that have not been deleted.", 25,
        "Delete endpoints that are not used; one endpoint can receive all events.",
    ),
    Quota.WAITING_EVENTS: Terms(
        "waiting deliveries", "Webhook deliveries that are still to be made, of all endpoints.", 500_000,
        "Restore the receivers, or disable the endpoints that do not answer.",
        retry_after=60, refuses=False,
    ),
    Quota.VENDOR_PROFILES: Terms(
        "vendor profiles", "Vendor profiles that have not been deleted.", 1_000,
        "Delete profiles that are not used.",
    ),
    Quota.API_KEYS: Terms(
        "API keys", "API keys that are neither revoked nor expired.", 100, "Revoke keys that are not used."
    ),
    Quota.UPLOADS: Terms(
        "uploads at a time", "Files that are arriving at this moment.", 20,
        "Wait for one of the uploads to end.", retry_after=10,
    ),
    Quota.WAITING_IMPORTS: Terms(
        "waiting imports",
        "Imports whose file waits to be read or committed, or is being read or committed.", 200,
        "Wait until some have been read.", retry_after=30,
    ),
    Quota.STAGED_ROWS: Terms(
        "staged rows", "Rows of all imports whose rows have not been deleted.", 20_000_000,
        "Discard imports that are not needed; committed ones expire by themselves.",
    ),
    Quota.STAGED_BYTES: Terms(
        "staged bytes", "Bytes of the files of all imports whose rows have not been deleted.",
        100_000_000_000,
        "Discard imports that are not needed; committed ones expire by themselves.",
    ),
    Quota.IDEMPOTENCY_ANSWERS: Terms(
        "stored answers", "Answers that are stored for Idempotency-Keys.", 300_000,
        "Send fewer new keys: each is forgotten after REGISTRAR_IDEMPOTENCY_HOURS.", retry_after=600,
    ),
}  # fmt: skip

KEPT_BY_HAND: Final = 1000
"""Entries of history written by people that are kept for one customer's consent or one batch: more than
anyone needs. Without a limit, repeating the same entry could fill the disk."""
SMALLEST: Final = 1
LARGEST: Final = 10**15
"""The largest value of a quota. There is no value for "no limit": set a large number."""


@dataclass(frozen=True, slots=True)
class Use:
    """How much of a quota a partner has used."""

    quota: Quota
    limit: int
    used: int
    is_own: bool = False
    """Whether the operator has set this limit for the partner."""

    @property
    def is_near(self) -> bool:
        """Whether at least 90 % is used."""
        return self.used * 10 >= self.limit * 9

    @property
    def is_used_up(self) -> bool:
        return self.used >= self.limit

    @property
    def passes(self) -> bool:
        """Whether the use decreases by itself."""
        return QUOTAS[self.quota].retry_after is not None


def refusal(use: Use, adding: int) -> str:
    """The message to a caller that wants to add more than the quota allows."""
    terms = QUOTAS[use.quota]
    state = "is used up" if use.is_used_up else "has no room for this"
    more = "" if adding == 1 else f", and this would add {adding:,}"
    return (
        f"The quota {use.quota.value} {state}: {use.used:,} of {use.limit:,} {terms.noun}{more}. "
        f"{terms.remedy} The operator can raise the quota."
    )
