"""Devices: what is known now about one device of one customer, from all of its registrations.

Microsoft's last definite answer counts until the next one: the customer has the device, or another
organisation has it. A failure or an unknown outcome does not tell where a device is, so it counts only while
there is no definite answer. An unknown outcome outranks a failure, because it may have registered the device.
The trigger of migration 0017 applies this table; tests compare the two.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from app.domain.registration import RegistrationState


class DeviceState(StrEnum):
    REGISTERED = "registered"  # with this customer, registered by this partner or by others
    CONFLICT = "conflict"  # another organisation has it
    NOT_REGISTERED = "not_registered"  # every attempt has failed
    UNKNOWN = "unknown"  # an attempt may have registered it: its outcome is not known


_R = RegistrationState

BELIEVED: Final[dict[RegistrationState, DeviceState]] = {
    _R.REGISTERED: DeviceState.REGISTERED,
    _R.ALREADY_REGISTERED: DeviceState.REGISTERED,
    _R.CONFLICT: DeviceState.CONFLICT,
    _R.FAILED: DeviceState.NOT_REGISTERED,
    _R.UNKNOWN: DeviceState.UNKNOWN,
}
"""What an outcome says about the device. Other states of a registration say nothing: it was not sent, or has
no outcome yet."""
DEFINITE: Final = frozenset({DeviceState.REGISTERED, DeviceState.CONFLICT})
"""States that a failure or an unknown outcome does not change."""


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """A device, with the registration that had the last outcome, in its present state.

    The `last_` values are None while that registration's order is being removed.
    """

    id: UUID
    customer_id: UUID
    identity: UUID
    state: DeviceState
    state_at: datetime
    registration_id: UUID
    first_outcome_at: datetime
    last_outcome_at: datetime
    serial_number: str | None
    manufacturer: str | None
    model: str | None
    product_key: str | None
    last_id: UUID | None
    last_order_id: UUID | None
    last_group_tag: str | None
    last_state: RegistrationState | None
    last_error_code: str | None


_WORD: Final = re.compile(r"[^\W_]{3}")


class SerialNumberSearch(StrEnum):
    """How this installation finds devices by serial number."""

    FRAGMENT = "fragment"
    PREFIX = "prefix"


def has_trigram(fragment: str) -> bool:
    """Whether a trigram index can find the fragment: it needs three letters or digits in a row."""
    return _WORD.search(fragment) is not None
