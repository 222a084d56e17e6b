"""The meaning of Partner Center's refusals.

Status decides first, Microsoft's code second and its words last, because codes are undocumented for the
device calls and bodies are missing as often as not.
"""

import re
from enum import Enum, auto

from app.domain.upstream import ConnectionTrouble, NoRelationship, Refused, Said, UpstreamFailure

_RELATIONSHIP_WORDS = re.compile(r"relationship", re.IGNORECASE)
_CUSTOMER_UNKNOWN_WORDS = re.compile(
    r"\b(customer|tenant)( \S{1,60})?( was| is| does| could)? not( be)? (found|exist)", re.IGNORECASE
)
_GROUP_TAG_WORDS = re.compile(r"\bbatch[ _]?id\b", re.IGNORECASE)


class _Means(Enum):
    """The scope of a refusal."""

    CUSTOMER = auto()  # there is no relationship with this customer
    TOKEN_KIND = auto()  # this call needs App+User
    PARTNER = auto()  # the partner itself, whatever it requests
    ACCESS = auto()  # this caller; on a customer's path perhaps only for this customer
    CALL = auto()  # this call, even with fewer devices
    REQUEST = auto()  # this request; with 400 or 413 perhaps because of its size or of one device


_DEFAULTS: dict[int, _Means] = {403: _Means.ACCESS}
"""The meaning of a status if neither code nor words say more; for other statuses it is REQUEST."""
_TOO_MUCH_PERHAPS = frozenset({400, 413})

_CODED = frozenset({400, 403, 404})
"""Statuses whose codes are read: the documentation names one for each code, but gateways change them."""
_CODES: dict[str, _Means] = {
    "20002": _Means.CUSTOMER,  # no commerce relationship with the customer
    "60003": _Means.CUSTOMER,  # tenant not found
    "900329": _Means.TOKEN_KIND,  # does not support App-only
    "900124": _Means.PARTNER,  # Microsoft Partner Agreement not accepted
    "900149": _Means.PARTNER,  # program status not active
    # In practice some customers alone cause 403s, and one of them must not stop all others.
    "900150": _Means.ACCESS,  # role lacks rights
    "900308": _Means.ACCESS,  # insufficient privileges
    "900309": _Means.ACCESS,  # blocked by Conditional Access, the customer's perhaps
    "2032": _Means.ACCESS,  # access denied
    "800016": _Means.CALL,  # not a valid indirect reseller
    "800018": _Means.CALL,  # the sandbox's limit is reached
    "900118": _Means.CALL,  # invalid customer id
    "900127": _Means.CALL,  # not supported in this environment
    "900316": _Means.CALL,  # the wrong kind of token
}

_WORDS: tuple[tuple[frozenset[int], re.Pattern[str], _Means], ...] = (
    (frozenset({400, 403}), _RELATIONSHIP_WORDS, _Means.CUSTOMER),
    (frozenset({400, 404}), _CUSTOMER_UNKNOWN_WORDS, _Means.CUSTOMER),
    (frozenset({400}), _GROUP_TAG_WORDS, _Means.CALL),
)
"""Used only if the code is not in the table."""


def failure_of(said: Said, of_customer: bool) -> UpstreamFailure:
    """`app.microsoft.http.Service.refusal` of Partner Center."""
    means = _meaning(said)
    match means:
        case _Means.CUSTOMER:
            return NoRelationship(said)
        case _Means.TOKEN_KIND:
            return ConnectionTrouble("credential_missing", said)
        case _Means.PARTNER:
            return ConnectionTrouble("access_denied", said)
        case _Means.ACCESS:
            return Refused("access_denied", said) if of_customer else ConnectionTrouble("access_denied", said)
        case _Means.CALL | _Means.REQUEST:
            divisible = means is _Means.REQUEST and said.status in _TOO_MUCH_PERHAPS
            return Refused(
                "batch_refused" if of_customer else "upstream_bad_request", said, divisible=divisible
            )


def _meaning(said: Said) -> _Means:
    if said.status in _CODED and (said.code or "") in _CODES:
        return _CODES[said.code or ""]
    for statuses, words, means in _WORDS:
        if said.status in statuses and words.search(said.description or ""):
            return means
    return _DEFAULTS.get(said.status or 0, _Means.REQUEST)
