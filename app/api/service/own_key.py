"""The caller's own API key: any valid key may rotate or revoke itself."""

from datetime import timedelta

from fastapi import APIRouter, Request, Response
from pydantic import Field

from app.api.contract.models import Input, Output
from app.api.contract.schema import body_of
from app.api.contract.times import Timestamp
from app.api.once import IdempotencyKey, answered_once
from app.api.requests import AnyCaller, RuntimeOf, has_body, read
from app.services.access import own_key

router = APIRouter(prefix="/v1/me", tags=["Catalogues"])

LONGEST_OVERLAP = timedelta(days=7)


class KeyRotationIn(Input):
    overlap_seconds: int = Field(
        24 * 3600,
        ge=0,
        le=int(LONGEST_OVERLAP.total_seconds()),
        description="How long the present key still works beside the new one. 0 ends it at once.",
    )


class KeyRotated(Output):
    key: str = Field(description="The new API key. Shown this once.")
    prefix: str = Field(description="Identifies the key in logs and lists.")
    name: str
    scopes: list[str] = Field(description="Those of the present key.")
    expires_at: Timestamp | None = Field(
        description="When the present key would have expired: rotating does not extend it."
    )
    previous_key_until: Timestamp = Field(description="Until then the present key works as well.")


@router.post("/key:rotate", response_model=KeyRotated, openapi_extra=body_of(KeyRotationIn, required=False))
async def rotate_key(
    request: Request, runtime: RuntimeOf, caller: AnyCaller, key: IdempotencyKey = None
) -> Response:
    """Creates the key that replaces this call's key, and shows it this once. It has the same scopes and the
    same expiry. Until the new key has been used, the call may be repeated: each call deletes the earlier new
    key."""
    given, digest = (
        await read(request, KeyRotationIn) if has_body(request) else (KeyRotationIn.model_validate({}), b"")
    )

    async with answered_once(request, runtime, caller, key, digest, shown_to=caller.key_id) as answer:
        if answer.is_due:
            overlap = timedelta(seconds=given.overlap_seconds)
            async with own_key.rotate(runtime, caller, overlap) as (tx, rotated):
                shown = KeyRotated(
                    key=rotated.key.secret,
                    prefix=rotated.key.prefix,
                    name=rotated.name,
                    scopes=list(rotated.scopes),
                    expires_at=rotated.expires_at,
                    previous_key_until=rotated.previous_until,
                )
                await answer.give(tx, 200, None, shown)
    return answer.response


@router.post("/key:revoke", status_code=204)
async def revoke_key(runtime: RuntimeOf, caller: AnyCaller) -> None:
    """Revokes the key of this call: the next call with it is refused. This cannot be undone."""
    await own_key.revoke(runtime, caller)
