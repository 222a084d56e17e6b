"""`registrar partner networks`: private networks that one partner's webhooks may go to."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.installation import use_installation
from app.cli.outcome import ExitCode
from app.cli.screen import Screen
from app.cli.surroundings import Json

if TYPE_CHECKING:
    from app.runtime import Runtime

app = typer.Typer()


@app.command("networks")
def partner_networks(
    partner: Annotated[str, typer.Argument(help="The partner's name or id.")],
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help="Let its webhooks go there: 10.1.0.0/16, or with a port 10.1.0.0/16:8443. An IPv6 network "
            "with a port stands in brackets."
        ),
    ] = None,
    forbid: Annotated[list[str] | None, typer.Option(help="Take such an allowance away.")] = None,
    json: Json = False,
) -> int:
    """Show, allow or forbid private networks for one partner's webhooks.

    Without a port, every port is allowed. A change counts from the next
    connection on. Cloud metadata addresses stay out of reach.
    """

    async def work(runtime: "Runtime") -> dict[str, Any]:
        from app.services import identities, networks

        owner = await identities.find_partner(runtime, partner)
        found = await networks.change(
            runtime, owner["id"], allow=networks.read(allow or ()), forbid=networks.read(forbid or ())
        )
        return {
            "partner_id": owner["id"],
            "partner_name": owner["name"],
            "networks": [str(each) for each in found],
            "for_every_partner": list(runtime.settings.webhook_allowed_networks),
        }

    found = use_installation(work)
    screen = Screen(json=json)
    if json:
        screen.document(found)
        return ExitCode.DONE
    name, own = found["partner_name"], found["networks"]
    if own:
        screen.say(f"Webhooks of {name} may go to these networks:", style="bold")
        for each in own:
            screen.say(f"  {each}")
    else:
        screen.say(f"No private network is allowed for the webhooks of {name} alone.")
    if found["for_every_partner"]:
        screen.say(f"Every partner's may go to {', '.join(found['for_every_partner'])}.")
    return ExitCode.DONE
