"""What a key may have told: an event is told to endpoints of keys that may read what it tells of."""

from collections.abc import Mapping, Sequence
from typing import Final

from app.domain.errors import FieldError, Forbidden
from app.domain.event import EVERY_TYPE, EventType
from app.services.identities import Caller, Scope

READ_SCOPES: Final[Mapping[EventType, Scope]] = {
    EventType.ORDER_ACCEPTED: Scope.ORDERS_READ,
    EventType.ORDER_HELD: Scope.ORDERS_READ,
    EventType.ORDER_COMPLETED: Scope.ORDERS_READ,
    EventType.ORDER_COMPLETED_WITH_ERRORS: Scope.ORDERS_READ,
    EventType.ORDER_FAILED: Scope.ORDERS_READ,
    EventType.ORDER_CANCELLED: Scope.ORDERS_READ,
    EventType.REGISTRATION_SETTLED: Scope.ORDERS_READ,
    EventType.CONSENT_GRANTED: Scope.CUSTOMERS_READ,
    EventType.CONSENT_REVOKED: Scope.CUSTOMERS_READ,
    EventType.CONNECTION_TROUBLE: Scope.CONNECTIONS_READ,
    EventType.CONNECTION_RECOVERED: Scope.CONNECTIONS_READ,
    EventType.IMPORT_READY: Scope.ORDERS_READ,
    EventType.IMPORT_REFUSED: Scope.ORDERS_READ,
    EventType.IMPORT_COMMITTED: Scope.ORDERS_READ,
    EventType.ENDPOINT_TEST: Scope.WEBHOOKS_READ,
}
"""The scope that reads what an event tells of."""

EVERY_SCOPE: Final = frozenset(scope for scope in Scope if scope.value.endswith(":read")) - {
    Scope.HASHES_READ,  # no event has a hash in it
    Scope.WEBHOOKS_READ,  # an endpoint may hear of itself
}
"""What an endpoint for every type needs: types that come later may tell of anything that can be read."""


def may_read(caller: Caller, type: EventType) -> bool:
    return READ_SCOPES[type] in caller.scopes


def require_types(caller: Caller, wanted: Sequence[EventType]) -> None:
    """For an endpoint that is to be told of these; of every type where there are none. Raises Forbidden."""
    if not wanted:
        missing = sorted(EVERY_SCOPE - caller.scopes)
        if missing:
            raise _forbidden(
                "An endpoint for every type of event, also those that come later, needs the scopes "
                f"{', '.join(sorted(EVERY_SCOPE))}. This API key lacks {', '.join(missing)}. Name the types "
                "that it may read in `event_types`, or use a key with these scopes."
            )
        return
    refused = sorted({type for type in wanted if not may_read(caller, type)})
    if refused:
        missing = sorted({READ_SCOPES[type] for type in refused})
        raise _forbidden(
            f"This API key lacks the scope {', '.join(missing)}, which reads what {', '.join(refused)} "
            f"{'tells' if len(refused) == 1 else 'tell'} of. Leave "
            f"{'it' if len(refused) == 1 else 'them'} out, or use a key with that scope."
        )


def require_stored(caller: Caller, stored: Sequence[str]) -> None:
    """As `require_types`, for the types that an endpoint has already. One that this release does not know
    comes from a later release, which has looked at it."""
    if EVERY_TYPE in stored:
        require_types(caller, ())
    elif known := [type for type in EventType if type.value in stored]:
        require_types(caller, known)


def require_event(caller: Caller, type: str) -> None:
    """For one event that is to be sent again. Raises Forbidden."""
    require_types(caller, [EventType(type)])


def _forbidden(words: str) -> Forbidden:
    return Forbidden("scope_missing", words, [FieldError("/event_types", "scope_missing", words)])
