"""Holds: what holds a batch, since when and by which code; and that one reason is one line."""

from dataclasses import replace
from datetime import timedelta
from itertools import product

import pytest

from app.domain.batch import OPEN_BATCH, BatchState
from app.domain.catalogue import CATALOGUE
from app.domain.consent import ConsentState, lets_pass
from app.domain.hold import HOLDS, Hold, HoldReason, Place, first_state, of_batch, of_customer
from tests.unit.test_domain_waiting import API, HELD, NOW, PORTAL, QUEUED, SUBMITTED, TROUBLE


def test_every_reason_says_by_which_codes_it_is_told_what_ends_it_and_where_it_lies() -> None:
    assert HOLDS.keys() == set(HoldReason)
    for terms in HOLDS.values():
        assert terms.codes
        assert terms.codes <= CATALOGUE.keys()
        assert terms.ends.endswith(".")
    told = [code for terms in HOLDS.values() for code in terms.codes]
    assert len(told) == len(set(told)), "a code tells of one reason"


def test_whatever_holds_a_batch_is_told_by_a_code_of_its_reason() -> None:
    troubles = [replace(TROUBLE, trouble_code=code) for code in HOLDS[HoldReason.CONNECTION].codes]
    for state, consent, connection in product(OPEN_BATCH, ConsentState, (API, PORTAL, *troubles)):
        base = HELD if state is BatchState.HELD else QUEUED
        failed = replace(base, state=state, consent=consent, failure_code=connection.trouble_code)
        for hold in of_batch(failed, connection):
            assert hold.code in HOLDS[HoldReason(hold.reason)].codes
            assert hold.since is not None


@pytest.mark.parametrize("consent", [None, *ConsentState])
def test_new_work_is_held_exactly_while_consent_does_not_let_it_pass(consent: ConsentState | None) -> None:
    reasons = of_customer(consent)
    expected = set() if consent is not None and lets_pass(consent) else {HoldReason.CONSENT}
    assert reasons == expected
    assert first_state(reasons) is (BatchState.HELD if expected else BatchState.QUEUED)
    assert all(HOLDS[reason].place is Place.WORK for reason in reasons)


def test_a_batch_can_be_held_by_several_reasons_each_with_its_time() -> None:
    assert of_batch(HELD, TROUBLE) == [
        Hold(HoldReason.CONNECTION, "credential_refused", TROUBLE.trouble_since, "AADSTS7000222"),
        Hold(HoldReason.CONSENT, "consent_missing", HELD.updated_at, "The customer's consent is requested."),
    ]
    assert of_batch(QUEUED, API) == []
    assert of_batch(SUBMITTED, PORTAL) == [
        Hold(HoldReason.PORTAL, "portal_outcome_due", NOW - timedelta(minutes=10))
    ]


def test_a_stored_reason_that_only_a_later_release_knows_holds_by_its_name() -> None:
    both = replace(HELD, holds=["made_up", "consent"])
    assert [hold.code for hold in of_batch(both, API)] == ["made_up", "consent_missing"]
    assert [hold.code for hold in of_batch(both, PORTAL)] == ["made_up", "consent_missing"]
