"""Event subscriptions of API keys: endpoints receive only events whose data their key may read."""

from collections.abc import Sequence

from app.domain.errors import FieldError, Forbidden
from app.domain.event import EVENTS, EventType
from app.domain.subscription import EVERY_SCOPE, EVERY_TYPE
from app.services.access.identities import Caller


def may_read(caller: Caller, type: str) -> bool:
    """Whether the key may read events of this type, which may be one that only a later release knows."""
    known = _known(type)
    return caller.scopes >= EVERY_SCOPE if known is None else EVENTS[known].scope in caller.scopes


def require_types(caller: Caller, wanted: Sequence[EventType]) -> None:
    """Requires the scopes for these event types; for every type if none is given. Raises Forbidden."""
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
        missing = sorted({EVENTS[type].scope for type in refused})
        raise _forbidden(
            f"This API key lacks the scope {', '.join(missing)}, which reads what {', '.join(refused)} "
            f"{'tells' if len(refused) == 1 else 'tell'} of. Leave "
            f"{'it' if len(refused) == 1 else 'them'} out, or use a key with that scope."
        )


def require_stored(caller: Caller, stored: Sequence[str]) -> None:
    """Like `require_types`, for the types that an endpoint has already. A type unknown to this release comes
    from a later release, which has checked it."""
    if EVERY_TYPE in stored:
        require_types(caller, ())
    elif known := [type for type in EventType if type.value in stored]:
        require_types(caller, known)


def require_event(caller: Caller, type: str) -> None:
    """Requires the scope for one event that is to be sent again. Raises Forbidden."""
    known = _known(type)
    require_types(caller, () if known is None else [known])


def _known(type: str) -> EventType | None:
    return EventType(type) if type in EventType.__members__.values() else None


def _forbidden(words: str) -> Forbidden:
    return Forbidden("scope_missing", words, [FieldError("/event_types", "scope_missing", words)])
