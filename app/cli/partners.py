"""The operator's commands for partners and their API keys, directly on the database.

There is no API for these on purpose: whoever may make keys already has the database's credentials.
A key is printed once, on the output, and nowhere else.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from app.cli.installation import use_installation
from app.cli.outcome import ExitCode, Stop
from app.cli.screen import Screen, moment
from app.cli.surroundings import OPERATE_PANEL, Json

if TYPE_CHECKING:
    from app.runtime import Runtime

ROLES: Final = "direct_bill, indirect_provider, indirect_reseller, distributor or oem"
SCOPES: Final = (
    "orders:read, orders:write, customers:read, customers:write, connections:read, connections:write, "
    "webhooks:read, webhooks:write"
)
"""Written out for the help text: the enumerations take a second to import. A test compares them."""

app = typer.Typer()
partner_app = typer.Typer(no_args_is_help=False)
key_app = typer.Typer(no_args_is_help=False)
app.add_typer(
    partner_app, name="partner", help="The organisations that use Registrar.", rich_help_panel=OPERATE_PANEL
)
app.add_typer(key_app, name="api-key", help="The keys that call the API.", rich_help_panel=OPERATE_PANEL)

Owner = Annotated[str, typer.Option("--partner", help="The partner's name or id.")]


@partner_app.command("create")
def create_partner(
    name: Annotated[str, typer.Argument(help="How people call it; unique.")],
    role: Annotated[str, typer.Option(help=f"What it is to Microsoft: {ROLES}.")],
    json: Json = False,
) -> int:
    """Add a partner."""

    async def work(runtime: "Runtime") -> str:
        from app.services import identities

        wanted = _member(identities.PartnerRole, role, "role", ROLES)
        return str(await identities.create_partner(runtime, name, wanted))

    partner_id = use_installation(work)
    screen = Screen(json=json)
    if json:
        screen.document({"id": partner_id, "name": name.strip(), "role": role})
    else:
        screen.say(f"Partner {name.strip()} has been added.", style="bold")
        screen.facts([("Id", partner_id), ("Role", role)])
        screen.say(f'Make a key for it: registrar api-key create --partner "{name.strip()}" --name NAME')
    return ExitCode.DONE


@partner_app.command("list")
def list_partners(json: Json = False) -> int:
    """List the partners."""

    async def work(runtime: "Runtime") -> list[dict[str, Any]]:
        from app.services import identities

        return [dict(row) for row in await identities.list_partners(runtime)]

    found = use_installation(work)
    screen = Screen(json=json)
    if json:
        screen.document(found)
    elif not found:
        screen.say("There are no partners yet. `registrar partner create` adds one.")
    else:
        rows = [(row["name"], row["role"], _time(row["created_at"]), row["id"]) for row in found]
        screen.table(("Name", "Role", "Added", "Id"), rows, whole=("Id",))
    return ExitCode.DONE


@key_app.command("create")
def create_key(
    partner: Owner,
    name: Annotated[str, typer.Option(help="What the key is for, such as the system that will hold it.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help=f"What it may do; may be given several times. Default: everything. One of {SCOPES}."
        ),
    ] = None,
    expires_days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="Days until it expires. Default: never.")
    ] = None,
    json: Json = False,
) -> int:
    """Make an API key and print it, once."""

    async def work(runtime: "Runtime") -> dict[str, Any]:
        from app.services import identities

        scopes = tuple(_member(identities.Scope, text, "scope", SCOPES) for text in scope or ())
        scopes = tuple(dict.fromkeys(scopes)) or tuple(identities.Scope)
        expires_at = None if expires_days is None else runtime.now() + timedelta(days=expires_days)
        owner = await identities.find_partner(runtime, partner)
        key = await identities.create_key(
            runtime, owner["id"], name=name, scopes=scopes, expires_at=expires_at
        )
        return {
            "partner_id": owner["id"],
            "partner_name": owner["name"],
            "name": name,
            "prefix": key.prefix,
            "key": key.secret,
            "scopes": list(scopes),
            "expires_at": expires_at,
        }

    made = use_installation(work)
    screen = Screen(json=json)
    if json:
        screen.document(made)
        return ExitCode.DONE
    screen.say(f"API key '{name}' of {made['partner_name']}:", style="bold")
    screen.say()
    screen.say(f"  {made['key']}")
    screen.say()
    screen.say("Keep it in a safe place now: it is stored nowhere and will not be shown again.")
    screen.facts(
        [
            ("Prefix", f"{made['prefix']} (names the key in `registrar api-key revoke`)"),
            ("May do", ", ".join(made["scopes"])),
            ("Expires", _time(made["expires_at"])),
        ]
    )
    return ExitCode.DONE


@key_app.command("list")
def list_keys(partner: Owner, json: Json = False) -> int:
    """List a partner's API keys. The keys themselves are not stored."""

    async def work(runtime: "Runtime") -> list[dict[str, Any]]:
        from app.services import identities

        owner = await identities.find_partner(runtime, partner)
        now = runtime.now()
        found = await identities.list_keys(runtime, owner["id"])
        return [{**row, "state": _state(row["revoked_at"], row["expires_at"], now)} for row in found]

    found = use_installation(work)
    screen = Screen(json=json)
    if json:
        screen.document(found)
    elif not found:
        screen.say("The partner has no API keys. `registrar api-key create` makes one.")
    else:
        rows = [
            (
                row["prefix"],
                row["name"],
                row["state"],
                _time(row["last_used_at"]),
                _time(row["created_at"]),
                _time(row["expires_at"]),
                " ".join(row["scopes"]),
            )
            for row in found
        ]
        screen.table(("Prefix", "Name", "State", "Last used", "Made", "Expires", "May do"), rows)
    return ExitCode.DONE


@key_app.command("revoke")
def revoke_key(
    prefix: Annotated[str, typer.Argument(help="The eight characters after `rk_`.")], partner: Owner
) -> int:
    """Make an API key useless at once."""
    # A person may paste the whole key: its secret must not come back in a message.
    parts = prefix.split("_")
    wanted = parts[1] if len(parts) > 1 and parts[0] == "rk" else prefix

    async def work(runtime: "Runtime") -> None:
        from app.services import identities

        owner = await identities.find_partner(runtime, partner)
        await identities.revoke_key(runtime, owner["id"], wanted)

    use_installation(work)
    Screen().say(f"The API key {wanted} is revoked; the next call with it is refused.")
    return ExitCode.DONE


Member = TypeVar("Member", bound=StrEnum)


def _member(kind: type[Member], text: str, noun: str, choices: str) -> Member:
    try:
        return kind(text.strip().lower())
    except ValueError:
        raise Stop(f"There is no {noun} '{text}'.", f"Use {choices}.") from None


def _state(revoked_at: datetime | None, expires_at: datetime | None, now: datetime) -> str:
    if revoked_at is not None:
        return "revoked"
    return "expired" if expires_at is not None and expires_at <= now else "valid"


def _time(at: datetime | None) -> str:
    return moment(at.isoformat() if at is not None else None)
