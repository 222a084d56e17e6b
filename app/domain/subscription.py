"""Subscriptions of endpoints to event types: how they are stored, shown and matched."""

from collections.abc import Sequence
from typing import Final

from app.domain.event import EVENTS, EventType
from app.domain.scope import Scope

SUBSCRIBABLE: Final = frozenset(type for type, entry in EVENTS.items() if not entry.asked_for)
"""What an endpoint for every type receives."""

EVERY_TYPE = "*"
"""Stored before the types of an endpoint that subscribes to every type."""

EVERY_SCOPE: Final = frozenset(scope for scope in Scope if scope.value.endswith(":read")) - {
    Scope.HASHES_READ,  # no event contains a hash
    Scope.WEBHOOKS_READ,  # for events about the endpoint itself
}
"""The scopes that an endpoint for every type needs: later types may be about anything that can be read."""


def stored_types(wanted: Sequence[str]) -> list[str]:
    """The types to store for an endpoint. No wanted types means every type, including later ones: then the
    mark is stored, and also today's types, for processes of the previous release, which do not know the
    mark."""
    if wanted:
        return [EventType(type).value for type in wanted]
    return [EVERY_TYPE, *sorted(type.value for type in SUBSCRIBABLE)]


def shown_types(stored: Sequence[str]) -> list[str]:
    """The types as the endpoint's owner gave them."""
    return [] if EVERY_TYPE in stored else list(stored)


def hears(stored: Sequence[str], type: EventType) -> bool:
    """Whether an endpoint with these types receives the event."""
    return type.value in stored or (EVERY_TYPE in stored and type in SUBSCRIBABLE)
