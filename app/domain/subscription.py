"""Which types of events an endpoint asked for, as they are stored, shown and matched."""

from collections.abc import Sequence
from typing import Final

from app.domain.event import EVENTS, EventType
from app.domain.scope import Scope

SUBSCRIBABLE: Final = frozenset(type for type, entry in EVENTS.items() if not entry.asked_for)
"""What an endpoint for every type is told."""

EVERY_TYPE = "*"
"""Stored in front of the types of an endpoint that asked for every type."""

EVERY_SCOPE: Final = frozenset(scope for scope in Scope if scope.value.endswith(":read")) - {
    Scope.HASHES_READ,  # no event has a hash in it
    Scope.WEBHOOKS_READ,  # an endpoint may hear of itself
}
"""What an endpoint for every type needs: types that come later may tell of anything that can be read."""


def stored_types(wanted: Sequence[str]) -> list[str]:
    """What is stored for an endpoint. None wanted means every type, also those that come later; today's stand
    beside the mark for a process of the release before, which knows no mark."""
    if wanted:
        return [EventType(type).value for type in wanted]
    return [EVERY_TYPE, *sorted(type.value for type in SUBSCRIBABLE)]


def shown_types(stored: Sequence[str]) -> list[str]:
    """As the endpoint's owner has asked for them."""
    return [] if EVERY_TYPE in stored else list(stored)


def hears(stored: Sequence[str], type: EventType) -> bool:
    """Whether an endpoint with these types is told of it."""
    return type.value in stored or (EVERY_TYPE in stored and type in SUBSCRIBABLE)
