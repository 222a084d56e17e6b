"""Access and refresh tokens: issues, remembers and checks them.

Tokens look like JWTs but carry no signature, because only this program checks them, and it does so by
remembering what it issued. Their randomness comes from the seeded source, so they protect nothing.
"""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass

import orjson

PARTNER_CENTER = "https://api.partnercenter.microsoft.com"
PARTNER_CENTER_APP = "fa3d9a0c-3fb0-42cc-9193-47c7ecd2edbd"
GRAPH_AUDIENCES = ("https://graph.windows.net", "00000002-0000-0000-c000-000000000000")


@dataclass(frozen=True, slots=True)
class Claims:
    """What an access token says. `delegated` is App+User, otherwise App-only."""

    partner: str
    client_id: str
    audience: str
    delegated: bool
    mfa: bool
    issued: float
    expires: float


@dataclass(slots=True)
class Refresh:
    """One refresh token. `revoked` ones are answered as Entra does after a password change or a rotation."""

    partner: str
    client_id: str
    expires: float
    revoked: bool = False
    redeemed: int = 0


def _segment(value: object) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(value)).rstrip(b"=").decode()


class Tokens:
    """Everything issued and not yet forgotten."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._access: dict[str, Claims] = {}
        self._refresh: dict[str, Refresh] = {}

    def issue_access(self, claims: Claims) -> str:
        if len(self._access) > 10_000:
            self._access = {t: c for t, c in self._access.items() if c.expires > claims.issued}
        payload = {
            "aud": claims.audience,
            "iss": f"https://sts.windows.net/{claims.partner}/",
            "iat": int(claims.issued),
            "nbf": int(claims.issued),
            "exp": int(claims.expires),
            "appid": claims.client_id,
            "tid": claims.partner,
            "idtyp": "user" if claims.delegated else "app",
            "jti": f"{self._chance.getrandbits(96):024x}",
        }
        if claims.delegated:
            payload |= {"amr": ["pwd", "mfa"] if claims.mfa else ["pwd"], "scp": "user_impersonation"}
        token = f"{_segment({'typ': 'JWT', 'alg': 'none'})}.{_segment(payload)}.simulated"
        self._access[token] = claims
        return token

    def claims(self, token: str) -> Claims | None:
        return self._access.get(token)

    def issue_refresh(self, partner: str, client_id: str, expires: float) -> str:
        token = f"1.{self._chance.getrandbits(384):096x}"
        self._refresh[token] = Refresh(partner, client_id, expires)
        return token

    def adopt_refresh(self, token: str, partner: str, client_id: str, expires: float) -> None:
        """Makes a caller's text a valid refresh token, for fixed sandbox credentials."""
        self._refresh[token] = Refresh(partner, client_id, expires)

    def refresh(self, token: str) -> Refresh | None:
        return self._refresh.get(token)

    def revoke_refresh(self, partner: str) -> int:
        mine = [r for r in self._refresh.values() if r.partner == partner and not r.revoked]
        for refresh in mine:
            refresh.revoked = True
        return len(mine)

    def expire_access(self, partner: str) -> int:
        """Forget a partner's access tokens, as if their time had passed."""
        mine = [token for token, claims in self._access.items() if claims.partner == partner]
        for token in mine:
            del self._access[token]
        return len(mine)
