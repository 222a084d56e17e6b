"""Headers that every answer has, whatever gives it: a route, a refusal, or the server itself."""

from typing import Final

Headers = list[tuple[bytes, bytes]]

CSP: Final = b"content-security-policy"
CLOSED_POLICY: Final = b"default-src 'none'; frame-ancestors 'none'"
"""For answers that are no page: a browser that shows one loads and runs nothing."""

_ALWAYS: Final = (
    # Answers are a partner's own data, and some show a secret.
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_TLS_ONLY: Final = (b"strict-transport-security", b"max-age=31536000")
"""Browsers then use no plain http for this host for a year. It says nothing of other hosts of the domain."""


class AnswerHeaders:
    """`public_url`: where callers reach the API. Only with https is TLS demanded of browsers."""

    def __init__(self, public_url: str | None) -> None:
        tls = (public_url or "").casefold().startswith("https://")
        self._always = [*_ALWAYS, _TLS_ONLY] if tls else [*_ALWAYS]

    def beside(self, given: Headers) -> Headers:
        """What an answer with these headers gets besides. A page keeps the policy of its own."""
        has_policy = any(name.lower() == CSP for name, _ in given)
        return self._always if has_policy else [*self._always, (CSP, CLOSED_POLICY)]
