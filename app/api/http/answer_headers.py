"""Headers of every answer, from a route, a refusal or the server itself."""

from typing import Final

Headers = list[tuple[bytes, bytes]]

CSP: Final = b"content-security-policy"
CLOSED_POLICY: Final = b"default-src 'none'; frame-ancestors 'none'"
"""For answers that are not pages: a browser that shows one loads and runs nothing."""

_ALWAYS: Final = (
    # Answers are a partner's own data, and some show a secret.
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_TLS_ONLY: Final = (b"strict-transport-security", b"max-age=31536000")
"""For a year, browsers then never use plain http for this host. Other hosts of the domain are not
affected."""


class AnswerHeaders:
    """`public_url`: where callers reach the API. Browsers are told to use TLS only if it is https."""

    def __init__(self, public_url: str | None) -> None:
        tls = (public_url or "").casefold().startswith("https://")
        self._always = [*_ALWAYS, _TLS_ONLY] if tls else [*_ALWAYS]

    def beside(self, given: Headers) -> Headers:
        """The headers to add to an answer with these. A page keeps its own policy."""
        has_policy = any(name.lower() == CSP for name, _ in given)
        return self._always if has_policy else [*self._always, (CSP, CLOSED_POLICY)]
