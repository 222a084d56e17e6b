"""Failures of calls to Microsoft, classified by what happens next.

    UpstreamFailure
    ├── NotSent               it had no effect; send it again later
    │   ├── Throttled         429: not before `retry_after`
    │   ├── HeldBack          our own budget or breaker delays it; Microsoft was not called
    │   ├── Unreachable       no connection, DNS, TLS
    │   └── LoginNotUnderstood  the token service's answer cannot be read
    ├── OutcomeUnknown        it may have had an effect: timeout, reset, 5xx
    │   └── NotUnderstood     there was an answer, but it cannot be read
    ├── Refused               a definite refusal of this request
    │   ├── NoRelationship    the customer has not (or no longer) agreed
    │   └── TagOtherwise      the group tag exists, or does not, contrary to our record
    └── ConnectionTrouble     the partner's access is broken until a person repairs it

`code` is a catalogue code. `said` is Microsoft's own message, shortened, without tokens or hashes.
"""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Said:
    """Microsoft's message: HTTP status, code and description, as far as there were any."""

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
    """The call had no effect."""


class Throttled(NotSent):
    """Microsoft asks to slow down."""

    def __init__(self, retry_after: timedelta | None, said: Said | None = None) -> None:
        super().__init__("upstream_throttled", said)
        self.retry_after = retry_after


class HeldBack(NotSent):
    """Our own budget delays the call. `said` is our message: Microsoft was not called."""

    def __init__(self, code: str, retry_after: timedelta, said: Said) -> None:
        super().__init__(code, said)
        self.retry_after = retry_after


class Unreachable(NotSent):
    """No connection was made."""

    def __init__(self, said: Said | None = None) -> None:
        super().__init__("upstream_unavailable", said)


class OutcomeUnknown(UpstreamFailure):
    """The call may have had an effect. `answered`: there was an answer, so its request id is used up."""

    def __init__(self, said: Said | None = None, *, answered: bool) -> None:
        super().__init__("upstream_unavailable", said)
        self.answered = answered


NOT_UNDERSTOOD = "upstream_not_understood"
"""The answer is not JSON, has another shape, or lacks a required field. Waiting alone may not fix that, so it
is shown as the connection's trouble, whatever the call was."""


class NotUnderstood(OutcomeUnknown):
    """There was an answer, but it cannot be read."""

    def __init__(self, said: Said | None = None) -> None:
        UpstreamFailure.__init__(self, NOT_UNDERSTOOD, said)
        self.answered = True


class LoginNotUnderstood(NotSent):
    """The token service's answer cannot be read. The call itself was not made."""

    def __init__(self, said: Said | None = None) -> None:
        super().__init__(NOT_UNDERSTOOD, said)


class Refused(UpstreamFailure):
    """A definite refusal of this request; sending the same again changes nothing.

    `divisible`: no reason was given, so a smaller call may be accepted.
    """

    def __init__(self, code: str, said: Said | None = None, *, divisible: bool = False) -> None:
        super().__init__(code, said)
        self.divisible = divisible


class NoRelationship(Refused):
    """Microsoft knows no reseller relationship with this customer."""

    def __init__(self, said: Said | None = None) -> None:
        super().__init__("consent_missing", said)


class TagOtherwise(Refused):
    """A tag to create exists, or one to append to does not. It is looked up, then sent the other way."""


class ConnectionTrouble(UpstreamFailure):
    """Credentials, MFA or agreements: the connection does not work until a person acts."""
