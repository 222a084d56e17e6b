"""`registrar partner quota`: shows what one partner may have at a time, and changes it."""

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from app.cli.installation import use_installation
from app.cli.outcome import ExitCode, Stop
from app.cli.screen import Screen, number
from app.cli.surroundings import Json
from app.domain.actor import OPERATOR, ActingFor
from app.domain.quota import LARGEST, QUOTAS, SMALLEST, Quota

if TYPE_CHECKING:
    from app.runtime import Runtime

DEFAULT: Final = "default"

app = typer.Typer()


@app.command("quota")
def partner_quota(
    partner: Annotated[str, typer.Argument(help="The partner's name or id.")],
    quota: Annotated[
        str | None, typer.Argument(help=f"The quota to set: {', '.join(Quota)}. Without it, all are shown.")
    ] = None,
    value: Annotated[
        str | None, typer.Argument(help=f"The new limit, or `{DEFAULT}` for the setting's value.")
    ] = None,
    json: Json = False,
) -> int:
    """Show a partner's quotas with their use, or set one of them.

    A limit below the present use deletes nothing; it only stops more from
    being added.
    """
    wanted = None if quota is None else _quota(quota)
    amount = None if value is None else _amount(value)
    if wanted is not None and value is None:
        raise Stop(
            f"What should the quota {wanted.value} be?",
            f"Give a number, or `{DEFAULT}`.",
            error_code="command_misused",
        )

    async def work(runtime: "Runtime") -> dict[str, Any]:
        from app.services.access import identities, quotas

        owner = await identities.find_partner(runtime, partner)
        if wanted is not None:
            await quotas.change(runtime, owner.id, wanted, amount)
        uses = await quotas.look_at(runtime, ActingFor(owner.id, OPERATOR))
        return {
            "partner_id": owner.id,
            "partner_name": owner.name,
            "quotas": [
                {
                    "quota": use.quota.value,
                    "limit": use.limit,
                    "used": use.used,
                    "is_default": not use.is_own,
                    "counts": QUOTAS[use.quota].counts,
                }
                for use in uses
                if wanted in (None, use.quota)
            ],
        }

    found = use_installation(work)
    screen = Screen(json=json)
    if json:
        screen.document(found)
    elif wanted is None:
        rows = [
            (
                each["quota"],
                number(each["used"]),
                number(each["limit"]),
                "default" if each["is_default"] else "set",
                each["counts"],
            )
            for each in found["quotas"]
        ]
        screen.table(("Quota", "Used", "Limit", "From", "Counts"), rows)
    else:
        [each] = found["quotas"]
        by = " (the default)" if each["is_default"] else ""
        words = f"{found['partner_name']}: at most {number(each['limit'])} {QUOTAS[wanted].noun}{by}"
        screen.say(f"{words}; {number(each['used'])} used.")
    return ExitCode.DONE


def _quota(text: str) -> Quota:
    try:
        return Quota(text.strip().lower().replace("-", "_"))
    except ValueError:
        raise Stop(f"There is no quota '{text}'.", f"Use {', '.join(Quota)}.") from None


def _amount(text: str) -> int | None:
    """None for the default."""
    if text.strip().lower() == DEFAULT:
        return None
    digits = text.strip().replace(",", "").replace("_", "")
    if not (digits.isascii() and digits.isdecimal()) or not SMALLEST <= int(digits[:20]) <= LARGEST:
        raise Stop(
            f"'{text}' is not a limit.",
            f"Give a whole number from {SMALLEST} to {number(LARGEST)}, or `{DEFAULT}`.",
        )
    return int(digits)
