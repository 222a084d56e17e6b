"""`registrar partner`: the operator's commands for partners, directly in the database.

These have no API on purpose: anybody who may add partners has the database's credentials already.
"""

from dataclasses import asdict
from datetime import datetime
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
"""Written out for the help text, because importing the enum takes a second. A test compares them."""

app = typer.Typer()
partner_app = typer.Typer(no_args_is_help=False)
app.add_typer(
    partner_app, name="partner", help="The organisations that use Registrar.", rich_help_panel=OPERATE_PANEL
)

Owner = Annotated[str, typer.Option("--partner", help="The partner's name or id.")]


@partner_app.command("create")
def create_partner(
    name: Annotated[str, typer.Argument(help="Its name; unique.")],
    role: Annotated[str, typer.Option(help=f"What it is to Microsoft: {ROLES}.")],
    json: Json = False,
) -> int:
    """Add a partner."""

    async def work(runtime: "Runtime") -> str:
        from app.services.access import identities

        wanted = member(identities.PartnerRole, role, "role", ROLES)
        return str(await identities.create_partner(runtime, name, wanted))

    partner_id = use_installation(work)
    screen = Screen(json=json)
    if json:
        screen.document({"id": partner_id, "name": name.strip(), "role": role})
    else:
        screen.say(f"Partner {name.strip()} has been added.", style="bold")
        screen.facts([("Id", partner_id), ("Role", role)])
        screen.say(f'Create a key for it: registrar api-key create --partner "{name.strip()}"')
    return ExitCode.DONE


@partner_app.command("list")
def list_partners(json: Json = False) -> int:
    """List the partners."""

    async def work(runtime: "Runtime") -> list[dict[str, Any]]:
        from app.services.access import identities

        return [asdict(row) for row in await identities.list_partners(runtime)]

    found = use_installation(work)
    screen = Screen(json=json)
    if json:
        screen.document(found)
    elif not found:
        screen.say("There are no partners yet. `registrar partner create` adds one.")
    else:
        rows = [(row["name"], row["role"], shown_time(row["created_at"]), row["id"]) for row in found]
        screen.table(("Name", "Role", "Added", "Id"), rows, whole=("Id",))
    return ExitCode.DONE


Member = TypeVar("Member", bound=StrEnum)


def member(kind: type[Member], text: str, noun: str, choices: str) -> Member:
    try:
        return kind(text.strip().lower())
    except ValueError:
        raise Stop(f"There is no {noun} '{text}'.", f"Use {choices}.") from None


def shown_time(at: datetime | None) -> str:
    return moment(at.isoformat() if at is not None else None)
