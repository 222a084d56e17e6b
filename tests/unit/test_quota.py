"""The table of quotas, and what is derived from it."""

import pytest

from app.domain.quota import LARGEST, QUOTAS, SMALLEST, Quota, Use, refusal
from app.kernel.settings import Settings
from tests.architecture.source import ROOT

GUIDE = (ROOT / "docs/operate.md").read_text()


def test_every_quota_has_its_words_and_a_default_that_can_be_set() -> None:
    assert set(QUOTAS) == set(Quota)
    for terms in QUOTAS.values():
        assert SMALLEST <= terms.default <= LARGEST
        assert terms.remedy.endswith(".")
        assert terms.counts.endswith(".")


def test_every_quota_is_a_setting() -> None:
    assert Settings().quotas == {quota: terms.default for quota, terms in QUOTAS.items()}
    given = {f"quota_{quota.value}": 7 for quota in Quota}
    assert set(Settings.model_validate(given).quotas.values()) == {7}
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        Settings.model_validate({"quota_customers": 0})


@pytest.mark.parametrize("quota", Quota)
def test_the_operators_guide_has_the_quota_as_it_is(quota: Quota) -> None:
    terms = QUOTAS[quota]
    status = "422" if terms.retry_after is None else f"429, `Retry-After: {terms.retry_after}`"
    if not terms.refuses:
        status = "nothing is refused: what is over it [ends](#webhook-endpoints)"
    assert f"| `{quota.value}` | {terms.default:,} | {terms.counts} | {status} |" in GUIDE


@pytest.mark.parametrize(
    ("used", "near", "full"), [(0, False, False), (89, False, False), (90, True, False), (100, True, True)]
)
def test_near_is_from_nine_tenths_on(used: int, near: bool, full: bool) -> None:
    use = Use(Quota.CUSTOMERS, 100, used)
    assert (use.is_near, use.is_used_up) == (near, full)


def test_a_refusal_names_quota_limit_use_remedy_and_who_can_raise_it() -> None:
    assert refusal(Use(Quota.DEVICES, 1000, 995), 10) == (
        "The quota devices has no room for this: 995 of 1,000 devices ordered, "
        "and this would add 10. Nothing of the order was stored; send it again once the quota is raised. "
        "The operator can raise the quota."
    )
