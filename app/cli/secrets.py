"""`registrar secrets`: the sealed values in the database."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.asking import Yes, confirm
from app.cli.installation import use_installation
from app.cli.outcome import ExitCode
from app.cli.screen import Screen, amount
from app.cli.surroundings import OPERATE_PANEL, Json

if TYPE_CHECKING:
    from app.runtime import Runtime

app = typer.Typer()
secrets_app = typer.Typer(no_args_is_help=False)
app.add_typer(
    secrets_app, name="secrets", help="The sealed secrets in the database.", rich_help_panel=OPERATE_PANEL
)

QUESTION = (
    "Do all API and worker processes run this release, and have they been restarted with the present "
    "REGISTRAR_SECRET_KEYS? Any other process cannot open what is sealed now."
)


@secrets_app.command("reseal")
def reseal(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only try to open and count them; change nothing.")
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> int:
    """Reseal every stored secret with the first of REGISTRAR_SECRET_KEYS and bound to its row.

    May be stopped and repeated. Values that do not open are named and left as they are; the command then
    ends with 2.
    """
    if not dry_run:
        confirm(QUESTION, yes=yes)

    async def work(runtime: "Runtime") -> list[dict[str, Any]]:
        from app.services.operations import sealing

        return [
            {
                "table": each.table,
                "column": each.column,
                "values": each.values,
                "current": each.current,
                "resealed": each.resealed,
                "closed": each.closed,
                "closed_rows": [{"row": row, "reason": reason} for row, reason in each.closed_rows],
            }
            for each in await sealing.reseal(runtime, dry_run=dry_run)
        ]

    found = use_installation(work)
    closed = sum(each["closed"] for each in found)
    code = ExitCode.PARTIAL if closed else ExitCode.DONE
    screen = Screen(json=json)
    if json:
        screen.document({"dry_run": dry_run, "columns": found, "exit_code": int(code)})
        return code
    headers = ("Table", "Column", "Values", "Current", "To reseal" if dry_run else "Resealed", "Not opened")
    rows = [
        (
            each["table"],
            each["column"],
            *(str(each[name]) for name in ("values", "current", "resealed", "closed")),
        )
        for each in found
    ]
    screen.table(headers, rows, whole=headers)
    for each in found:
        for row in each["closed_rows"]:
            screen.say(f"{each['table']} {row['row']}, {each['column']}: does not open: {row['reason']}.")
    screen.say()
    for line in ending(found, dry_run=dry_run):
        screen.say(line)
    return code


def ending(found: Sequence[Mapping[str, Any]], *, dry_run: bool) -> list[str]:
    """Prints what was done, or would be, and the next step."""
    values, current, resealed, closed = (
        sum(each[name] for each in found) for name in ("values", "current", "resealed", "closed")
    )
    if not values:
        return ["No secret is stored yet, so old keys can leave REGISTRAR_SECRET_KEYS."]
    done = f"{resealed:,} to be resealed" if dry_run else f"{resealed:,} resealed"
    rest = f"{current:,} current already, {closed:,} not opened"
    lines = [f"{amount(values, 'stored secret')}: {done}, {rest}."]
    if closed:
        lines += [
            "Set those again: PATCH the connection, rotate the secret of the webhook endpoint.",
            "If the key that sealed them still exists, add it to REGISTRAR_SECRET_KEYS and repeat this.",
        ]
    elif not resealed:
        lines.append("Old keys can leave REGISTRAR_SECRET_KEYS now. Restart all processes then.")
    elif dry_run:
        lines.append("Nothing was changed. `registrar secrets reseal` reseals them.")
    else:
        lines.append("Old keys can go once `registrar secrets reseal --dry-run` finds nothing left to seal.")
    return lines
