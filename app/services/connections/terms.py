"""The rules for a customer's rows, and whether they may be ordered at all.

One place for orders by JSON, for imports and for portal connections, so that the same row is refused by
all of them or by none.
"""

from app.domain.connection import ConnectionMode
from app.domain.errors import Unprocessable
from app.domain.identity import Rules
from app.kernel.settings import Settings
from app.platforms.base import Platform
from app.runtime import Runtime
from app.services.portal import files


def rules_of(runtime: Runtime, platform: Platform, *, mode: ConnectionMode, group_tag: str) -> Rules:
    """`group_tag` is for rows that name none. A portal's file carries less than a call does."""
    return Rules(
        platform.capabilities.identities,
        max_group_tag=runtime.settings.max_group_tag,
        objection=files.objection(runtime, platform, group_tag) if mode is ConnectionMode.PORTAL else None,
    )


def batch_size(settings: Settings, platform: Platform) -> int:
    """Devices of one batch at most: what the platform takes, or less where the operator wants less."""
    return min(platform.capabilities.max_devices, settings.max_batch_devices)


def bar_of(platform: Platform, role: str, mode: ConnectionMode) -> str | None:
    """Why nothing can be ordered, if so: said here, where Microsoft would only answer with a 403."""
    if mode is ConnectionMode.PORTAL or role not in platform.barred_roles:
        return None
    return f"{platform.title} does not offer its API to partners of the role {role}."


def refuse_barred(platform: Platform, role: str, mode: ConnectionMode) -> None:
    if barred := bar_of(platform, role, mode):
        raise Unprocessable("partner_role_cannot_use_api", barred)
