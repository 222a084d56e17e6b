"""Profiles: several installations by name; whose address and key a command calls with."""

import stat
from pathlib import Path

import orjson
import pytest

from app.cli import profile_store
from app.cli.outcome import ExitCode
from tests.unit.cli_wire import KEY, Wire
from tests.unit.pseudo_terminal import in_a_process

PROD = "rk_9f8e7d6c_" + "p" * 52
TEST = "rk_1a2b3c4d_" + "t" * 52


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path


def run(wire: Wire, folder: Path, *arguments: str, **extra: str) -> tuple[int, str]:
    """Without an address and a key in the environment but those in `extra`."""
    bare: dict[str, str | None] = {"REGISTRAR_API_KEY": None, "REGISTRAR_API_URL": None}
    given = extra.pop("input", None)
    environment = {**bare, "XDG_CONFIG_HOME": str(folder), "REGISTRAR_PROFILE": None, **extra}
    result = wire.run(*arguments, env=environment, input=given)
    return result.exit_code, result.output


@pytest.fixture
def two(wire: Wire, folder: Path) -> Path:
    for name, url, key in (("prod", "https://prod.example/v1", PROD), ("test", "https://test.example", TEST)):
        code, said = run(wire, folder, "profile", "add", name, "--url", url, input=f"{key}\n")
        assert code == ExitCode.DONE, said
        assert key not in said
    return folder


def called(wire: Wire) -> tuple[str, str]:
    request = wire.requests[-1]
    return str(request.url.host), request.headers["Authorization"].removeprefix("Bearer ")


def test_the_file_is_for_its_owner_only_and_the_first_profile_is_used(wire: Wire, two: Path) -> None:
    file = two / "registrar" / "profiles.toml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert profile_store.path() == file
    assert list(file.parent.iterdir()) == [file]
    _, said = run(wire, two, "profile", "list", "--json")
    assert orjson.loads(said) == [
        {"name": "prod", "url": "https://prod.example", "used": True},
        {"name": "test", "url": "https://test.example", "used": False},
    ]
    assert run(wire, two, "customers")[0] == ExitCode.DONE
    assert called(wire) == ("prod.example", PROD)


def test_options_go_before_the_environment_and_that_before_the_profile(wire: Wire, two: Path) -> None:
    run(wire, two, "--profile", "test", "customers")
    assert called(wire) == ("test.example", TEST)
    run(wire, two, "customers", "--profile", "test")
    assert called(wire) == ("test.example", TEST)
    run(wire, two, "customers", REGISTRAR_PROFILE="test")
    assert called(wire) == ("test.example", TEST)
    run(wire, two, "customers", REGISTRAR_API_KEY=KEY)
    assert called(wire) == ("prod.example", KEY)
    run(wire, two, "customers", REGISTRAR_API_URL="http://127.0.0.1:8000", REGISTRAR_API_KEY=KEY)
    assert called(wire) == ("127.0.0.1", KEY)
    run(wire, two, "customers", "--profile", "test", REGISTRAR_API_URL="http://127.0.0.1:8000")
    assert called(wire) == ("test.example", TEST)
    run(wire, two, "customers", "--profile", "test", "--api-key", KEY, REGISTRAR_API_KEY=PROD)
    assert called(wire) == ("test.example", KEY)


def test_a_profiles_key_goes_to_its_own_address_only(wire: Wire, two: Path) -> None:
    code, said = run(wire, two, "customers", "--api-url", "https://elsewhere.example")
    assert (code, wire.requests) == (ExitCode.ERROR, [])
    assert "no API key" in said
    run(wire, two, "customers", "--api-url", "https://prod.example/v1/")
    assert called(wire) == ("prod.example", PROD)


def test_import_keeps_its_own_option_of_that_name(wire: Wire, two: Path) -> None:
    for name, means in (("import", "vendor profile"), ("validate", "saved mapping")):
        assert means in run(wire, two, name, "--help")[1]
    run(wire, two, "--profile", "test", "order", "x")
    assert called(wire) == ("test.example", TEST)


def test_profiles_are_chosen_and_removed(wire: Wire, two: Path) -> None:
    assert run(wire, two, "profile", "use", "test")[0] == ExitCode.DONE
    run(wire, two, "customers")
    assert called(wire) == ("test.example", TEST)
    assert run(wire, two, "profile", "remove", "test")[0] == ExitCode.DONE
    assert TEST not in profile_store.path().read_text()
    assert run(wire, two, "customers")[0] == ExitCode.ERROR
    for arguments in (("profile", "use", "gone"), ("profile", "remove", "gone"), ("--profile", "x", "list")):
        code, said = run(wire, two, *arguments)
        assert code == ExitCode.ERROR
        assert "There is no profile" in said


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o666])
def test_a_file_that_others_can_read_is_refused(wire: Wire, two: Path, mode: int) -> None:
    profile_store.path().chmod(mode)
    code, said = run(wire, two, "customers", "--json")
    assert (code, wire.requests) == (ExitCode.ERROR, [])
    assert "chmod 600" in said
    assert '"profile_unusable"' in said
    assert run(wire, two, "customers", "--api-url", "http://127.0.0.1", "--api-key", KEY)[0] == ExitCode.DONE


@pytest.mark.parametrize(
    "text",
    [f"key = {PROD}", f'[profiles.x]\nkey = "{PROD}"', "profiles = 3", f'[profiles]\nx = "{PROD}"', "\xff"],
)
def test_a_broken_file_is_told_without_its_keys(wire: Wire, folder: Path, text: str) -> None:
    file = folder / "registrar" / "profiles.toml"
    file.parent.mkdir()
    file.write_bytes(text.encode("latin-1"))
    file.chmod(0o600)
    code, said = run(wire, folder, "customers")
    assert code == ExitCode.ERROR
    assert "profiles.toml" in said
    assert PROD not in said


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (("a b", "--url", "https://x.example"), PROD),
        (("x", "--url", "nowhere"), PROD),
        (("x", "--url", "https://x.example"), ""),
        (("x", "--url", "https://x.example"), "two words"),
    ],
)
def test_what_can_be_no_profile_is_not_kept(
    wire: Wire, folder: Path, arguments: tuple[str, ...], key: str
) -> None:
    assert run(wire, folder, "profile", "add", *arguments, input=f"{key}\n")[0] == ExitCode.ERROR
    assert not profile_store.path().exists()


def test_values_come_back_as_they_were(folder: Path) -> None:
    strange = profile_store.Profiles(
        {'we"ird\\name': profile_store.Profile("https://x.example/ä", "k'\"\\")}, 'we"ird\\name'
    )
    profile_store.save(strange)
    assert profile_store.load() == strange
    assert "k'" not in repr(strange)


def test_a_person_types_the_key_unseen(folder: Path) -> None:
    shown = in_a_process(
        *("profile", "add", "prod", "--url", "https://prod.example"),
        typed=f"{PROD}\n",
        environment={"XDG_CONFIG_HOME": str(folder)},
    )
    assert shown.exit_code == ExitCode.DONE, shown.text
    assert "API key of prod" in shown.text
    assert PROD not in shown.text
    assert profile_store.load().by_name["prod"].key == PROD
