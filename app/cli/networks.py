"""`registrar partner networks`: private networks that one partner's webhooks may go to."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.asking import Yes, require_yes
from app.cli.installation import use_installation
from app.cli.outcome import ExitCode, Stop
from app.cli.screen import Screen
from app.cli.surroundings import Json
from app.domain.actor import OPERATOR, ActingFor
from app.domain.address import Allowance, for_one_partner

if TYPE_CHECKING:
    from app.runtime import Runtime

app = typer.Typer()


@app.command("networks")
def partner_networks(
    partner: Annotated[str, typer.Argument(help="The partner's name or id.")],
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help="A network that its webhooks may reach: 10.1.0.0/16, 10.1.0.0/16:8443 or fd00::/8."
        ),
    ] = None,
    forbid: Annotated[list[str] | None, typer.Option(help="Forbid a network that was allowed.")] = None,
    yes: Yes = False,
    json: Json = False,
) -> int:
    """Show, allow or forbid private networks for one partner's webhooks.

    Without a port, every port is allowed. A change applies from the next
    connection on. Loopback, link-local and cloud metadata addresses stay
    out of reach. A network of more than one site asks first; a pipe needs
    --yes.
    """  # fmt: skip
    opened, closed = _read(for_one_partner, allow), _read(Allowance.parse, forbid)
    for each in opened:
        if each.is_wide:
            question = f"{each} has {each.network.num_addresses:,} addresses. May webhooks go to all of them?"
            require_yes(question, yes=yes)

    async def work(runtime: "Runtime") -> dict[str, Any]:
        from app.services.access import identities, networks

        owner = await identities.find_partner(runtime, partner)
        found = await networks.change(runtime, ActingFor(owner.id, OPERATOR), allow=opened, forbid=closed)
        return {
            "partner_id": owner.id,
            "partner_name": owner.name,
            "networks": [str(each) for each in found],
            "too_wide": [str(each) for each in found if each.inward is not None],
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
        for each in found["too_wide"]:
            screen.say(
                f"{each} contains addresses that no webhook should reach. Remove it with --forbid {each}"
            )
    else:
        screen.say(f"No private network is allowed for the webhooks of {name} alone.")
    if found["for_every_partner"]:
        screen.say(f"Every partner's may go to {', '.join(found['for_every_partner'])}.")
    return ExitCode.DONE


def _read(read: Callable[[str], Allowance], texts: Sequence[str] | None) -> list[Allowance]:
    try:
        return [read(text) for text in texts or ()]
    except ValueError as error:
        raise Stop(str(error)) from None
