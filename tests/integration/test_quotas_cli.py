"""`registrar partner quota`: the operator's limits for one partner."""

from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from app.cli import app
from app.domain.quota import QUOTAS, Quota
from app.services.access import quotas
from tests.support.worker import run_operator
from tests.support.world import Partner, World


async def registrar(database_url: str, *arguments: str) -> tuple[str, str]:
    done = await run_operator(database_url, "partner", "quota", *arguments)
    return done.stdout, done.stderr


async def limits(world: World, partner: Partner) -> dict[Quota, tuple[int, bool]]:
    uses = await quotas.look_at(world.runtime, partner)
    return {use.quota: (use.limit, use.is_own) for use in uses}


async def test_a_quota_is_set_for_one_partner_and_taken_back(world: World, database_url: str) -> None:
    partner, other = await world.partner(), await world.partner()
    before = await limits(world, partner)
    assert before == {quota: (terms.default, False) for quota, terms in QUOTAS.items()}
    said, log = await registrar(database_url, partner.name, "customers", "250,000")
    assert f"{partner.name}: at most 250,000 customers; 2 used." in said
    assert "quota_changed" in log
    assert await limits(world, partner) == before | {Quota.CUSTOMERS: (250_000, True)}
    assert await limits(world, other) == before
    said, _ = await registrar(database_url, str(partner.id), "--json")
    shown: dict[str, Any] = {each["quota"]: each for each in orjson.loads(said)["quotas"]}
    assert set(shown) == set(Quota)
    assert (shown["customers"]["limit"], shown["customers"]["is_default"]) == (250_000, False)
    said, _ = await registrar(database_url, partner.name, "customers", "default")
    assert "at most 100,000 customers (the default)" in said
    assert await limits(world, partner) == before


async def test_a_quota_below_the_use_takes_nothing_away(world: World) -> None:
    partner = await world.partner()
    await quotas.change(world.runtime, partner.id, Quota.CUSTOMERS, 1)
    [use] = [u for u in await quotas.look_at(world.runtime, partner) if u.quota is Quota.CUSTOMERS]
    assert (use.limit, use.used) == (1, 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("customers", "0"), "'0' is not a limit."),
        (("customers", "-5"), "No such option"),
        (("customers", "many"), "'many' is not a limit."),
        (("customers", "1.5"), "'1.5' is not a limit."),
        (("customers", "9" * 400), "is not a limit."),
        (("customers", "²"), "is not a limit."),
        (("customers",), "What should the quota customers be?"),
        (("cusomers", "5"), "There is no quota 'cusomers'."),
    ],
)
def test_what_is_no_limit_is_refused_before_anything_is_opened(
    arguments: tuple[str, ...], words: str
) -> None:
    done = CliRunner().invoke(app, ["partner", "quota", "Nobody", *arguments])
    assert done.exit_code == 1
    assert words in done.stderr
