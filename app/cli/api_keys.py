"""`registrar api-key`: the keys that call the API.

Operators create, list and revoke partners' keys directly in the database. Holders rotate and revoke their own
key through the API. A key is printed once, to stdout, and nowhere else.
"""

from dataclasses import asdict
from datetime import UTC, datetime, time, timedelta
from json import dumps
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import uuid4

import typer

from app.cli import profile_store
from app.cli.asking import Yes, confirm, is_terminal
from app.cli.installation import use_installation
from app.cli.outcome import ExitCode, Stop
from app.cli.partners import Owner, member, shown_time
from app.cli.profile_store import Profile
from app.cli.screen import Screen, moment
from app.cli.surroundings import DEFAULT_URL, OPERATE_PANEL, ApiKey, ApiUrl, Json, surroundings
from app.domain import api_key as form
from app.domain.actor import OPERATOR, ActingFor
from app.domain.scope import Scope

if TYPE_CHECKING:
    from app.runtime import Runtime

SCOPES: Final = ", ".join(Scope)
PRESETS: Final = "operator, integration, read-only"
"""Written out for the help text, because importing the enum takes a second. A test compares them."""
EXPIRES: Final = "365 days"
"""The default expiry, so that a leaked and forgotten key ends at some point."""
_EXPIRY_WORDS: Final = "Give a number of days such as 90, a date such as 2027-06-30, or never."

app = typer.Typer()
key_app = typer.Typer(no_args_is_help=False)
app.add_typer(key_app, name="api-key", help="The keys that call the API.", rich_help_panel=OPERATE_PANEL)


@key_app.command("create")
def create_key(
    partner: Owner,
    name: Annotated[str, typer.Option(help="What the key is for, such as the system that will hold it.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help=f"What the key may do; may be given several times: a preset ({PRESETS}), which is stored as "
            f"the scopes that it has today, or any of {SCOPES}."
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            help=f"When the key expires: days, a date, or never. Default: {EXPIRES}.", show_default=False
        ),
    ] = None,
    expires_days: Annotated[int | None, typer.Option(min=1, max=36_500, hidden=True)] = None,
    json: Json = False,
) -> int:
    """Create an API key and print it once."""
    wanted = scope or _ask_for_scopes()
    if expires is None and expires_days is None:
        expires = EXPIRES if scope or not is_terminal() else typer.prompt("Expires", EXPIRES, err=True)
    ends = _expiry(str(expires_days) if expires is None else expires)

    async def work(runtime: "Runtime") -> dict[str, Any]:
        from app.services.access import identities

        scopes = _scopes(wanted)
        now = runtime.now()
        expires_at = now + ends if isinstance(ends, timedelta) else ends
        if expires_at is not None and expires_at <= now:
            raise Stop("The key would have expired already.", _EXPIRY_WORDS, error_code="command_misused")
        owner = await identities.find_partner(runtime, partner)
        operator = ActingFor(owner.id, OPERATOR)
        key = await identities.create_key(runtime, operator, name=name, scopes=scopes, expires_at=expires_at)
        return {
            "partner_id": owner.id,
            "partner_name": owner.name,
            "name": name,
            "prefix": key.prefix,
            "key": key.secret,
            "scopes": scopes,
            "expires_at": expires_at,
        }

    made = use_installation(work)
    screen = Screen(json=json)
    if json:
        screen.document(made)
        return ExitCode.DONE
    screen.say(f"API key '{name}' of {made['partner_name']}:", style="bold")
    _show_secret(screen, made["key"])
    screen.facts(
        [
            ("Prefix", f"{made['prefix']} (names the key in `registrar api-key revoke`)"),
            ("May do", ", ".join(made["scopes"])),
            ("Expires", shown_time(made["expires_at"])),
        ]
    )
    return ExitCode.DONE


def _ask_for_scopes() -> list[str]:
    if is_terminal():
        words = f"What may it do? {PRESETS}, or scopes with commas between them"
        return str(typer.prompt(words, err=True)).split(",")
    raise Stop(
        "The command does not say what the key may do.",
        f"Give --scope: {PRESETS}, or any of {SCOPES}.",
        error_code="command_misused",
    )


def _scopes(wanted: list[str]) -> list[Scope]:
    from app.services.access import identities

    found: set[Scope] = set()
    for text in wanted:
        name = text.strip().lower()
        if name in list(identities.Preset):
            found.update(identities.PRESETS[identities.Preset(name)])
        else:
            found.add(member(Scope, text, "scope", f"{PRESETS}, {SCOPES}"))
    return [scope for scope in Scope if scope in found]


def _expiry(text: str) -> timedelta | datetime | None:
    """When the key expires: at the end of a day (UTC), or None for never. Raises Stop."""
    words = text.strip().lower()
    if words == "never":
        return None
    number = words.removesuffix("days").removesuffix("day").removesuffix("d").strip()
    try:
        if number.isdecimal() and 1 <= int(number) <= 36_500:
            return timedelta(days=int(number))
        return datetime.combine(datetime.fromisoformat(words).date(), time.max, UTC)
    except ValueError:
        raise Stop(f"'{text}' is not an expiry date.", _EXPIRY_WORDS, error_code="command_misused") from None


def _show_secret(screen: Screen, key: str) -> None:
    screen.say()
    screen.say(f"  {key}")
    screen.say()
    screen.say("Store it in a safe place now: it is not stored here and will not be shown again.")


@key_app.command("list")
def list_keys(partner: Owner, json: Json = False) -> int:
    """List a partner's API keys. The keys themselves are not stored."""

    async def work(runtime: "Runtime") -> list[dict[str, Any]]:
        from app.services.access import identities

        owner = await identities.find_partner(runtime, partner)
        now = runtime.now()
        found = await identities.list_keys(runtime, ActingFor(owner.id, OPERATOR))
        return [{**asdict(row), "state": _state(row.revoked_at, row.expires_at, now)} for row in found]

    found = use_installation(work)
    screen = Screen(json=json)
    if json:
        screen.document(found)
    elif not found:
        screen.say("The partner has no API keys. `registrar api-key create` creates one.")
    else:
        rows = [
            (
                row["prefix"],
                row["name"],
                row["state"],
                row["replaced_by"] or "",
                shown_time(row["last_used_at"]),
                shown_time(row["created_at"]),
                shown_time(row["expires_at"]),
                " ".join(row["scopes"]),
            )
            for row in found
        ]
        headers = ("Prefix", "Name", "State", "Replaced by", "Last used", "Made", "Expires", "May do")
        screen.table(headers, rows)
    return ExitCode.DONE


@key_app.command("revoke")
def revoke_key(
    ctx: typer.Context,
    prefix: Annotated[
        str | None, typer.Argument(help="The eight characters between the first two underscores.")
    ] = None,
    partner: Annotated[str | None, typer.Option("--partner", help="The partner's name or id.")] = None,
    own: Annotated[
        bool, typer.Option("--own", help="Revoke the key that you hold, through the API.")
    ] = False,
    yes: Yes = False,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
) -> int:
    """Revoke an API key at once: a partner's, or with --own the one that you hold."""
    if own:
        if prefix or partner:
            raise Stop(
                "--own means the key that you hold.",
                "Leave out the prefix and --partner.",
                error_code="command_misused",
            )
        confirm("Revoke the key that you are using? This cannot be undone.", yes=yes)
        with surroundings(ctx).api(api_url, api_key) as api:
            api.post("/v1/me/key:revoke")
        Screen().say("Your API key is revoked; the next call with it is refused.")
        return ExitCode.DONE
    if not prefix or not partner:
        raise Stop(
            "No key was named.", "Give its prefix and --partner, or --own.", error_code="command_misused"
        )
    # Somebody may paste the whole key: a message must not repeat its secret.
    wanted = form.named(prefix)

    async def work(runtime: "Runtime") -> str | None:
        from app.services.access import identities

        owner = await identities.find_partner(runtime, partner)
        operator = ActingFor(owner.id, OPERATOR)
        await identities.revoke_key(runtime, operator, wanted)
        return next(
            (
                row.replaced_by
                for row in await identities.list_keys(runtime, operator)
                if row.prefix == wanted
            ),
            None,
        )

    successor = use_installation(work)
    screen = Screen()
    screen.say(f"The API key {wanted} is revoked; the next call with it is refused.")
    if successor:
        screen.say(
            f"It had been rotated: the key {successor} replaced it and still works. If the key has leaked, "
            "revoke that one as well."
        )
    return ExitCode.DONE


@key_app.command("rotate")
def rotate_key(
    ctx: typer.Context,
    overlap_hours: Annotated[
        int, typer.Option(min=0, max=168, help="Hours for which the old key still works beside the new one.")
    ] = 24,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """Replace the key that you hold with a new one, through the API; it is printed once.

    The new key has the same scopes and expires when the present one would have. If the present key comes from
    a profile, the new one is stored in that profile.
    """
    around = surroundings(ctx)
    with around.api(api_url, api_key) as api:
        body = dumps({"overlap_seconds": overlap_hours * 3600}).encode()
        made = api.post("/v1/me/key:rotate", body, key=str(uuid4())).body
    profile = _keep_in_profile(around.given.choose(api_url, api_key)[1], made["key"])
    screen = Screen(json=json)
    if json:
        screen.document({**made, "profile": profile})
        return ExitCode.DONE
    screen.say(f"The new API key '{made['name']}':", style="bold")
    _show_secret(screen, made["key"])
    screen.facts(
        [
            ("Prefix", made["prefix"]),
            ("May do", ", ".join(made["scopes"])),
            ("Expires", moment(made["expires_at"])),
            ("The key before", f"works until {moment(made['previous_key_until'])}"),
            *([("Profile", f"{profile} has the new key")] if profile else []),
        ]
    )
    return ExitCode.DONE


def _keep_in_profile(old: str | None, new: str) -> str | None:
    """The profile that had the old key, and has the new one now."""
    known = profile_store.load()
    for name, profile in known.by_name.items():
        if profile.key == old:
            changed = {**known.by_name, name: Profile(profile.url, new)}
            profile_store.save(profile_store.Profiles(changed, known.used))
            return name
    return None


def _state(revoked_at: datetime | None, expires_at: datetime | None, now: datetime) -> str:
    if revoked_at is not None:
        return "revoked"
    return "expired" if expires_at is not None and expires_at <= now else "valid"
