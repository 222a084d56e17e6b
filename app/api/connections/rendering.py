"""Connections into answers."""

from app.api.connections.models import ConnectionOut, Trouble
from app.api.contract.fields import remedy, same
from app.domain.connection import Connection, ConnectionMode


def connection(record: Connection) -> ConnectionOut:
    trouble = None
    if record.trouble_code is not None:
        trouble = Trouble(
            code=record.trouble_code,
            said=record.trouble_said or None,
            since=record.trouble_since,
            # A later release, running beside this one, may have written a code that is unknown here.
            remedy=remedy(record.trouble_code) or "",
        )
    return ConnectionOut(
        **same(record, ConnectionOut, but=("portal", "has_client_secret", "has_refresh_token", "trouble")),
        portal=record.mode is ConnectionMode.PORTAL,
        has_client_secret=bool(record.client_secret),
        has_refresh_token=record.refresh_token is not None,
        trouble=trouble,
    )
