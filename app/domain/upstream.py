"""Failures of a call to Microsoft, in the terms that decide what happens next.

    UpstreamFailure
    ├── NotSent               it certainly had no effect; send it again later
    │   ├── Throttled         429: not before `retry_after`
    │   ├── HeldBack          our own budget or breaker says not yet; Microsoft was not asked
    │   ├── Unreachable       no connection, DNS, TLS
    │   └── LoginNotUnderstood  the token service's answer cannot be read
    ├── OutcomeUnknown        it may have had its effect: timeout, reset, 5xx
    │   └── NotUnderstood     there was an answer, and it cannot be read
    ├── Refused               a definite no to this request
    │   ├── NoRelationship    the customer has not (or no longer) agreed
    │   └── TagOtherwise      the group tag is there, or is not, other than our note of it says
    └── ConnectionTrouble     the partner's access is broken until somebody repairs it

`code` is a catalogue code. `said` keeps Microsoft's own words, shortened, never a token or hash.
"""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Said:
    """Microsoft's words: HTTP status, its code and description, as far as there were any."""

    status: int | None = None
    code: str | None = None
    description: str | None = None

    def __str__(self) -> str:
        parts = (f"HTTP {self.status}" if self.status else "", self.code or "", self.description or "")
        return " ".join(part for part in parts if part)[:500]


class UpstreamFailure(Exception):
    """The base of all failures of a call; never raised itself."""

    def __init__(self, code: str, said: Said | None = None) -> None:
        super().__init__(code, str(said or ""))
        self.code = code
        self.said = said or Said()


class NotSent(UpstreamFailure):
    """The call certainly had no effect."""


class Throttled(NotSent):
    """Microsoft asks to slow down."""

    def __init__(self, retry_after: timedelta | None, said: Said | None = None) -> None:
        super().__init__("upstream_throttled", said)
        self.retry_after = retry_after


class HeldBack(NotSent):
    """Our own budget for this connection says not yet. `said` is ours: Microsoft was not asked."""

    def __init__(self, code: str, retry_after: timedelta, said: Said) -> None:
        super().__init__(code, said)
        self.retry_after = retry_after


class Unreachable(NotSent):
    """No connection was made."""

    def __init__(self, said: Said | None = None) -> None:
        super().__init__("upstream_unavailable", said)


class OutcomeUnknown(UpstreamFailure):
    """The call may have had its effect. `answered`: there was an answer, so its request id is spent."""

    def __init__(self, said: Said | None = None, *, answered: bool) -> None:
        super().__init__("upstream_unavailable", said)
        self.answered = answered


NOT_UNDERSTOOD = "upstream_not_understood"
"""An answer came that is not JSON, has another shape, or lacks what it must have. Waiting alone may not
fix that, so it is shown as the connection's trouble, whatever the call was."""


class NotUnderstood(OutcomeUnknown):
    """Something answered, and the answer cannot be read."""

    def __init__(self, said: Said | None = None) -> None:
        UpstreamFailure.__init__(self, NOT_UNDERSTOOD, said)
        self.answered = True


class LoginNotUnderstood(NotSent):
    """The token service answered, and the answer cannot be read. The call itself was not made."""

    def __init__(self, said: Said | None = None) -> None:
        super().__init__(NOT_UNDERSTOOD, said)


class Refused(UpstreamFailure):
    """A definite no to this request; sending the same again changes nothing.

    `divisible`: nothing says why, so that a smaller call may be accepted.
    """

    def __init__(self, code: str, said: Said | None = None, *, divisible: bool = False) -> None:
        super().__init__(code, said)
        self.divisible = divisible


class NoRelationship(Refused):
    """Microsoft knows no reseller relationship with this customer."""

    def __init__(self, said: Said | None = None) -> None:
        super().__init__("consent_missing", said)


class TagOtherwise(Refused):
    """Creating a group tag that exists, or adding to one that does not: looked up, and tried another way."""


class ConnectionTrouble(UpstreamFailure):
    """Credentials, MFA or agreements: nothing of this connection works until a person acts."""
