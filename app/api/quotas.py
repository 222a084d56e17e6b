"""The limit of calls as a caller meets it: what is left on every answer, and 429 once nothing is.

The headers are those of draft-ietf-httpapi-ratelimit-headers-10. `spend` notes on the request where the
key stands and the middleware shows it, so that refusals and streamed files have the headers as well.
"""

from starlette.requests import Request
from starlette.types import Scope

from app.domain.errors import RateLimited
from app.quotas import WINDOW, Quota
from app.runtime import Runtime
from app.services.identities import Caller
from app.telemetry import logger

log = logger("api")

POLICY = "default"
"""The draft asks for a name, by which the two headers belong together."""


async def spend(request: Request, runtime: Runtime, caller: Caller) -> None:
    """Counts the call for the caller's key. Raises RateLimited."""
    quota = await runtime.quotas.take(caller.key_id, runtime.now())
    if quota is None:
        return
    request.state.quota = quota
    if not quota.is_exceeded:
        return
    if quota.used == quota.limit + 1:  # once in a window
        log.warning("key_over_its_limit", prefix=caller.key_prefix, partner_id=str(caller.partner_id))
    words = f"This API key has made its {quota.limit:,} calls of the minute."
    raise RateLimited("rate_limited", words, retry_after=quota.resets_in)


def headers_of(scope: Scope) -> list[tuple[bytes, bytes]]:
    """None for a call that was not counted: no key, no limit, or no Redis."""
    quota = scope["state"].get("quota")
    return render(quota) if quota is not None else []


def render(quota: Quota) -> list[tuple[bytes, bytes]]:
    return [
        (b"ratelimit-policy", f'"{POLICY}";q={quota.limit};w={WINDOW}'.encode()),
        (b"ratelimit", f'"{POLICY}";r={quota.remaining};t={quota.resets_in}'.encode()),
    ]
