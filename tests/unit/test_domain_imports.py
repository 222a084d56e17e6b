"""An import's states, its verdicts and references; and whom a file means by a customer."""

from uuid import UUID

import pytest

from app.domain.catalogue import Finding
from app.domain.directory import Directory, Entry
from app.domain.imports import (
    IMPORT_TRANSITIONS,
    MOVING,
    READY,
    ImportState,
    order_reference,
    ready_state,
)
from app.domain.transitions import sources_of

TENANT = UUID(int=11)
CONTOSO = Entry(UUID(int=1), TENANT, "contoso.com", "Contoso  Ltd")
FABRIKAM = Entry(UUID(int=2), UUID(int=12), None, "Fabrikam")
TWIN = Entry(UUID(int=3), TENANT, "twin.com", "fabrikam")


def test_every_state_has_its_moves_and_every_one_but_the_first_is_reached() -> None:
    assert set(IMPORT_TRANSITIONS) == set(ImportState)
    reached = set().union(*IMPORT_TRANSITIONS.values())
    assert set(ImportState) - reached == {ImportState.UPLOADING}


def test_what_moves_by_itself_has_somewhere_to_go_and_ends_have_not() -> None:
    ends = {state for state, moves in IMPORT_TRANSITIONS.items() if not moves}
    assert ends == {ImportState.COMMITTED, ImportState.DISCARDED, ImportState.EXPIRED}
    assert not ends & (MOVING | READY)


def test_only_what_is_ready_can_be_committed() -> None:
    assert sources_of(IMPORT_TRANSITIONS, ImportState.COMMITTING) == READY
    assert (ready_state(0), ready_state(1)) == (ImportState.READY, ImportState.READY_WITH_ERRORS)


def test_one_customer_keeps_the_reference_and_several_get_a_suffix_that_does_not_change() -> None:
    customer = UUID("01a213f8-9652-7384-8986-9c91137c9b8a")
    assert order_reference("PO-1", customer, alone=True) == "PO-1"
    assert order_reference("PO-1", customer, alone=False) == "PO-1/137c9b8a"
    assert order_reference("PO-1", str(customer), alone=False) == "PO-1/137c9b8a"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (str(UUID(int=12)), FABRIKAM.id),
        (str(CONTOSO.id).upper(), CONTOSO.id),
        ("CONTOSO.com ", CONTOSO.id),
        (" contoso ltd", CONTOSO.id),
        ("Contoso", "customer_not_found"),
        ("", "customer_not_found"),
        ("FABRIKAM", "customer_ambiguous"),
        (str(TENANT), "customer_ambiguous"),
        ("\x00\u202e" * 200, "customer_not_found"),
    ],
)
def test_a_customer_is_found_exactly_or_not_at_all(text: str, expected: UUID | str) -> None:
    found = Directory([CONTOSO, FABRIKAM, TWIN]).find(text)
    assert (found.code if isinstance(found, Finding) else found) == expected
    if isinstance(found, Finding):
        assert found.is_error
        assert found.detail.isprintable()
        assert len(found.detail) < 200


@pytest.mark.parametrize(
    ("text", "given", "customer", "code"),
    [
        (None, None, None, "customer_missing"),
        ("  ", CONTOSO.id, CONTOSO.id, None),
        ("contoso.com", None, CONTOSO.id, None),
        ("contoso.com", CONTOSO.id, CONTOSO.id, None),
        ("contoso.com", FABRIKAM.id, FABRIKAM.id, "customer_contradicts"),
        ("somebody", FABRIKAM.id, FABRIKAM.id, "customer_name_unknown"),
        ("somebody", None, None, "customer_not_found"),
    ],
)
def test_a_row_belongs_to_the_customer_of_the_upload_or_of_its_cell(
    text: str | None, given: UUID | None, customer: UUID | None, code: str | None
) -> None:
    found, objection = Directory([CONTOSO, FABRIKAM]).of_row(text, given)
    assert (found, objection and objection.code) == (customer, code)
