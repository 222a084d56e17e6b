"""The rate limit of API keys: what is left is in every answer's headers, and beyond it comes 429.

The headers are those of draft-ietf-httpapi-ratelimit-headers-10. `spend` stores the key's count on the
request and the middleware adds the headers, so that refusals and streamed files have them as well.
"""

from starlette.requests import Request
from starlette.types import Scope

from app.domain.errors import RateLimited
from app.kernel.call_rates import WINDOW, CallRate
from app.kernel.telemetry import logger
from app.runtime import Runtime
from app.services.access.identities import Caller

log = logger("api")

POLICY = "default"
"""The name that the draft requires to tie the two headers together."""


async def spend(request: Request, runtime: Runtime, caller: Caller) -> None:
    """Counts the call for the caller's key. Raises RateLimited."""
    rate = await runtime.call_rates.take(caller.key_id, runtime.now())
    if rate is None:
        return
    request.state.call_rate = rate
    if not rate.is_exceeded:
        return
    if rate.used == rate.limit + 1:  # once in a window
        log.warning("key_over_its_limit", prefix=caller.key_prefix, partner_id=str(caller.partner_id))
    words = f"This API key has made its {rate.limit:,} calls of the minute."
    raise RateLimited("rate_limited", words, retry_after=rate.resets_in)


def headers_of(scope: Scope) -> list[tuple[bytes, bytes]]:
    """The headers. Empty for a call that was not counted: no key, no limit, or no Redis."""
    rate = scope["state"].get("call_rate")
    return render(rate) if rate is not None else []


def render(rate: CallRate) -> list[tuple[bytes, bytes]]:
    return [
        (b"ratelimit-policy", f'"{POLICY}";q={rate.limit};w={WINDOW}'.encode()),
        (b"ratelimit", f'"{POLICY}";r={rate.remaining};t={rate.resets_in}'.encode()),
    ]
