"""Devices: what is believed now of one device of one customer, over all of its registrations.

A definite answer of Microsoft's stands until the next one: that the customer has the device, or that another
company has it. A failure and an unknown outcome say nothing of where a device is, so they count only where no
definite answer is known. An unknown one outranks a failure, because it may have registered the device.
The trigger of migration 0017 applies this table; tests hold the two together.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from app.domain.registration import RegistrationState


class DeviceState(StrEnum):
    REGISTERED = "registered"  # with this customer, by this partner or by others
    CONFLICT = "conflict"  # another company has it
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
"""What an outcome says of the device. Other states of a registration say nothing: it was not sent, or has no
outcome yet."""
DEFINITE: Final = frozenset({DeviceState.REGISTERED, DeviceState.CONFLICT})
"""States that a failure or an unknown outcome leaves as they are."""


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """A device with the registration whose outcome was the last one, as that is now.

    The `last_` values are None while its order is being removed.
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
    """What of a serial number this installation finds devices by."""

    FRAGMENT = "fragment"
    PREFIX = "prefix"


def has_trigram(fragment: str) -> bool:
    """Whether an index of trigrams can look for the fragment: it needs three letters or digits in a row."""
    return _WORD.search(fragment) is not None
