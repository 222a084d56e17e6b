"""`registrar profile`: named installations, each with its address and key.

A profile's key goes to the profile's own address and to no other, and no command prints it.
"""

import sys
from dataclasses import replace
from typing import Annotated

import typer

from app.cli import profile_store
from app.cli.api_client import Api, base_of
from app.cli.outcome import ExitCode, Stop
from app.cli.profile_store import NAME, Profile
from app.cli.screen import Screen
from app.cli.surroundings import PROFILES_PANEL, Json

app = typer.Typer(help="Several installations of Registrar, by name.", no_args_is_help=False)

Name = Annotated[str, typer.Argument(help="The profile's name.")]


@app.command("add", rich_help_panel=PROFILES_PANEL)
def add_profile(
    name: Name,
    url: Annotated[str, typer.Option("--url", help="The address of its API.")],
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            show_default=False,
            help="Better left out: other users of the machine can see it. The command asks for it, or "
            "reads it from stdin.",
        ),
    ] = None,
    json: Json = False,
) -> int:
    """Add a profile, or replace its address and key. The first one becomes the default."""
    screen = Screen(json=json)
    if not NAME.fullmatch(name):
        raise Stop(
            f"'{name}' cannot be a profile's name.",
            "Use letters, digits, dots, hyphens and underscores, 64 characters at most.",
            error_code="command_misused",
        )
    known = profile_store.load()
    key = (api_key or _key_given(name)).strip()
    with Api(url, key):
        pass  # refuses a malformed address or key
    profiles = {**known.by_name, name: Profile(base_of(url), key)}
    profile_store.save(replace(known, by_name=profiles, used=known.used or name))
    _show(screen, f"The profile {name} is stored in {profile_store.path()}.")
    return ExitCode.DONE


def _key_given(name: str) -> str:
    if sys.stdin.isatty():
        return str(typer.prompt(f"API key of {name}", hide_input=True, err=True))
    return sys.stdin.readline()


@app.command("list", rich_help_panel=PROFILES_PANEL)
def list_profiles(json: Json = False) -> int:
    """List the profiles. Their keys are not shown."""
    screen = Screen(json=json)
    known = profile_store.load()
    if json:
        screen.document(
            [
                {"name": name, "url": profile.url, "used": name == known.used}
                for name, profile in known.by_name.items()
            ]
        )
    elif not known.by_name:
        screen.say("There are no profiles yet. `registrar profile add NAME --url URL` adds one.")
    else:
        rows = [
            (name, profile.url, "yes" if name == known.used else "")
            for name, profile in known.by_name.items()
        ]
        headers = ("Name", "Address", "Used")
        screen.table(headers, rows, whole=headers)
    return ExitCode.DONE


@app.command("use", rich_help_panel=PROFILES_PANEL)
def use_profile(name: Name, json: Json = False) -> int:
    """Use a profile from now on, unless an option or the environment says otherwise."""
    screen = Screen(json=json)
    known = profile_store.load()
    profile = known.named(name)
    profile_store.save(replace(known, used=name))
    _show(screen, f"{name} ({profile.url}) is used from now on.")
    return ExitCode.DONE


@app.command("remove", rich_help_panel=PROFILES_PANEL)
def remove_profile(name: Name, json: Json = False) -> int:
    """Remove a profile with its key. The key itself stays valid until it is revoked."""
    screen = Screen(json=json)
    known = profile_store.load()
    known.named(name)
    left = {each: profile for each, profile in known.by_name.items() if each != name}
    profile_store.save(replace(known, by_name=left, used=None if known.used == name else known.used))
    _show(screen, f"The profile {name} is removed.")
    return ExitCode.DONE


def _show(screen: Screen, words: str) -> None:
    screen.say(words)
    if screen.json:
        known = profile_store.load()
        screen.document({"used": known.used, "profiles": list(known.by_name)})
