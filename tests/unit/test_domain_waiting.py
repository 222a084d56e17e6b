"""Reasons why work waits, from facts: each code, several at once, and which of them comes first."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app.domain.batch import OPEN_BATCH, BatchState
from app.domain.budget import Budget, BudgetPolicy, fresh, opened_since
from app.domain.catalogue import CATALOGUE
from app.domain.connection import ConnectionMode
from app.domain.consent import ConsentState
from app.domain.hold import BatchFacts, ConnectionFacts
from app.domain.waiting import ServiceFacts, Waiting, reasons

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
POLICY = BudgetPolicy()
ID = UUID(int=1)
WELL = ServiceFacts(workers_alive=True, worker_seen_at=NOW, redis=True)
QUEUED = BatchFacts(
    id=UUID(int=2),
    connection_id=ID,
    state=BatchState.QUEUED,
    devices=10,
    created_at=NOW - timedelta(hours=1),
    updated_at=NOW - timedelta(minutes=30),
    due_at=NOW - timedelta(minutes=29),
)
HELD = replace(QUEUED, state=BatchState.HELD, holds=["consent"], consent=ConsentState.REQUESTED)
SUBMITTED = replace(QUEUED, state=BatchState.SUBMITTED, submitted_at=NOW - timedelta(minutes=10))
LATER = NOW + timedelta(minutes=2)
API = ConnectionFacts(ID, ConnectionMode.API, budget=fresh(NOW, POLICY))
PORTAL = ConnectionFacts(ID, ConnectionMode.PORTAL)
TROUBLE = replace(
    API,
    trouble_code="credential_refused",
    trouble_said="AADSTS7000222",
    trouble_since=NOW - timedelta(days=1),
)


def told(
    *batches: BatchFacts, connection: ConnectionFacts = API, service: ServiceFacts = WELL
) -> list[Waiting]:
    connections: Mapping[UUID, ConnectionFacts] = {ID: connection}
    return reasons(batches, connections, service, POLICY, NOW)


def codes(*batches: BatchFacts, connection: ConnectionFacts = API, service: ServiceFacts = WELL) -> list[str]:
    return [reason.code for reason in told(*batches, connection=connection, service=service)]


def with_budget(**changes: Any) -> ConnectionFacts:
    return replace(API, budget=replace(fresh(NOW, POLICY), **changes))


def test_nothing_waits_where_no_batch_is_open() -> None:
    assert told() == []


def test_what_is_only_queued_waits_for_its_turn() -> None:
    assert told(QUEUED) == [Waiting("waiting_for_turn", 10, QUEUED.created_at)]


def test_what_is_being_sent_waits_for_nothing() -> None:
    assert told(replace(QUEUED, state=BatchState.SUBMITTING)) == []


def test_what_microsoft_processes_says_since_when_and_when_it_is_asked_again() -> None:
    assert told(replace(SUBMITTED, due_at=LATER)) == [
        Waiting("processing_at_microsoft", 10, SUBMITTED.submitted_at, LATER)
    ]


def test_a_trouble_of_the_connection_holds_all_of_its_open_batches() -> None:
    for batch in (QUEUED, SUBMITTED, replace(QUEUED, due_at=LATER, failure_code="credential_refused")):
        [reason] = told(batch, connection=TROUBLE)
        assert reason == Waiting("credential_refused", 10, TROUBLE.trouble_since, None, "AADSTS7000222")
    assert codes(HELD, connection=TROUBLE) == ["credential_refused", "consent_missing"]


@pytest.mark.parametrize("code", ["upstream_not_understood", "customers_not_read"])
def test_a_list_of_customers_that_cannot_be_read_is_told_to_what_waits_for_consent(code: str) -> None:
    connection = replace(API, trouble_code=code, trouble_since=NOW)
    held = replace(HELD, consent=ConsentState.UNKNOWN)
    assert codes(held, connection=connection) == [code, "consent_missing"]
    assert code not in codes(QUEUED, connection=connection)


def test_a_missing_refresh_token_holds_only_what_has_met_it() -> None:
    connection = replace(TROUBLE, trouble_code="credential_missing")
    assert codes(QUEUED, connection=connection) == ["waiting_for_turn"]
    met = replace(QUEUED, due_at=LATER, failure_code="credential_missing")
    assert codes(met, connection=connection) == ["credential_missing"]


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (ConsentState.UNKNOWN, "consent_missing"),
        (ConsentState.REQUESTED, "consent_missing"),
        (ConsentState.REVOKED, "consent_revoked"),
    ],
)
def test_what_is_held_waits_for_consent_since_it_was_held(state: ConsentState, code: str) -> None:
    [reason] = told(replace(HELD, consent=state))
    assert (reason.code, reason.since, reason.until) == (code, HELD.updated_at, None)
    assert state.value in (reason.detail or "")


def test_a_retry_after_says_since_when_and_until_when() -> None:
    since, until = NOW - timedelta(seconds=20), NOW + timedelta(seconds=70)
    connection = with_budget(throttled_at=since, blocked_until=until)
    assert told(QUEUED, connection=connection) == [Waiting("upstream_throttled", 10, since, until)]
    assert codes(SUBMITTED, connection=connection) == ["upstream_throttled"]


def test_an_open_breaker_says_since_when_and_when_one_call_tries_again() -> None:
    until = NOW + timedelta(seconds=8)
    connection = with_budget(failures=6, opened=2, open_until=until)
    # Two pauses, of 5 and 10 seconds, of which the second ends in 8.
    assert told(QUEUED, connection=connection) == [
        Waiting("upstream_unavailable", 10, NOW - timedelta(seconds=7), until)
    ]


def test_what_microsoft_said_last_stands_beside_an_open_breaker() -> None:
    connection = with_budget(failures=6, opened=2, open_until=LATER)
    failed = replace(QUEUED, failure_code="upstream_unavailable", failure_said="HTTP 503")
    assert [reason.detail for reason in told(failed, connection=connection)] == ["HTTP 503"]
    other = replace(failed, failure_code="batch_refused", failure_said="HTTP 400")
    assert [reason.detail for reason in told(other, connection=connection)] == [None]


def test_a_breaker_that_has_opened_very_often_still_has_a_beginning() -> None:
    opened: Budget = replace(fresh(NOW, POLICY), opened=1000, open_until=NOW)
    since = opened_since(opened, POLICY)
    assert since is not None
    # 5 + 10 + 20 + 40 s, then a minute each.
    assert NOW - since == timedelta(seconds=75 + 996 * 60)
    assert opened_since(fresh(NOW, POLICY), POLICY) is None


def test_a_used_up_rate_is_told_when_the_wait_is_more_than_a_moment() -> None:
    owing = with_budget(tokens=-50.0)
    [reason] = told(QUEUED, connection=owing)
    assert reason.code == "call_rate_used_up"
    assert reason.until is not None
    assert reason.until > NOW + timedelta(seconds=5)
    assert codes(QUEUED, connection=with_budget(tokens=0.5)) == ["waiting_for_turn"]
    lost = replace(API, not_before=LATER)
    assert told(QUEUED, connection=lost) == [Waiting("call_rate_used_up", 10, QUEUED.updated_at, LATER)]


def test_a_failure_that_is_tried_again_later_has_its_own_code_and_words() -> None:
    failed = replace(QUEUED, due_at=LATER, failure_code="upstream_unavailable", failure_said="HTTP 503")
    assert told(failed) == [Waiting("upstream_unavailable", 10, QUEUED.updated_at, LATER, "HTTP 503")]
    assert codes(replace(failed, due_at=NOW)) == ["waiting_for_turn"], "due now: it has its turn again"
    assert codes(replace(SUBMITTED, due_at=LATER, failure_code="batch_broken")) == ["batch_broken"]


def test_a_group_tag_in_the_making_names_the_batch_that_makes_it() -> None:
    creator = UUID(int=7)
    waiting = replace(
        QUEUED, due_at=LATER, tag_creator=creator, tag_since=NOW - timedelta(seconds=5), tag_due_at=LATER
    )
    [reason] = told(waiting)
    assert (reason.code, reason.since, reason.until) == (
        "group_tag_being_created",
        NOW - timedelta(seconds=5),
        LATER,
    )
    assert str(creator) in (reason.detail or "")


def test_an_unknown_outcome_is_being_looked_up_whatever_else_holds() -> None:
    unknown = replace(
        QUEUED, state=BatchState.UNKNOWN, due_at=LATER, uncertain_since=NOW - timedelta(hours=2)
    )
    assert told(unknown) == [Waiting("outcome_being_looked_up", 10, NOW - timedelta(hours=2), LATER)]
    assert codes(unknown, connection=TROUBLE) == ["credential_refused", "outcome_being_looked_up"]


def test_a_person_at_a_portal_has_to_upload_and_to_record_and_no_worker_matters() -> None:
    silent = ServiceFacts(workers_alive=False, redis=False)
    assert codes(QUEUED, connection=PORTAL, service=silent) == ["portal_upload_due"]
    assert codes(SUBMITTED, connection=PORTAL, service=silent) == ["portal_outcome_due"]
    assert codes(HELD, connection=PORTAL, service=silent) == ["consent_missing"]


def test_a_service_without_workers_or_redis_holds_everything() -> None:
    seen = NOW - timedelta(hours=3)
    away = NOW - timedelta(minutes=4)
    silent = ServiceFacts(workers_alive=False, worker_seen_at=seen, redis=False, redis_away_since=away)
    found = told(QUEUED, replace(HELD, devices=5), SUBMITTED, service=silent)
    assert [(each.code, each.since, each.devices) for each in found[:2]] == [
        ("no_worker_alive", seen, 25),
        ("redis_unavailable", away, 25),
    ]
    [never, *_] = told(QUEUED, service=ServiceFacts(workers_alive=False))
    assert (never.since, never.detail) == (None, "None has been seen yet.")
    assert codes(QUEUED, service=ServiceFacts()) == ["waiting_for_turn"], "nobody has looked"


def test_the_same_reason_of_several_batches_is_told_once_with_all_their_devices() -> None:
    older = replace(QUEUED, created_at=NOW - timedelta(days=2), devices=3)
    assert told(QUEUED, older) == [Waiting("waiting_for_turn", 13, older.created_at)]


def test_what_a_person_has_to_do_first_comes_first() -> None:
    silent = ServiceFacts(workers_alive=False, redis=True)
    found = codes(
        SUBMITTED,
        HELD,
        replace(HELD, consent=ConsentState.REVOKED),
        replace(QUEUED, state=BatchState.UNKNOWN),
        connection=TROUBLE,
        service=silent,
    )
    assert found == [
        "no_worker_alive",
        "credential_refused",
        "consent_revoked",
        "consent_missing",
        "outcome_being_looked_up",
    ]


def test_a_code_of_a_later_release_is_told_like_one_that_needs_a_person() -> None:
    strange = replace(TROUBLE, trouble_code="a_code_to_come")
    assert codes(HELD, connection=strange) == ["a_code_to_come", "consent_missing"]


def test_every_reason_is_a_code_of_the_catalogue_and_every_open_batch_but_one_on_its_way_has_one() -> None:
    for state in OPEN_BATCH - {BatchState.SUBMITTING}:
        for connection in (API, PORTAL, TROUBLE, with_budget(opened=1, open_until=LATER)):
            base = HELD if state is BatchState.HELD else QUEUED
            batch = replace(base, state=state, submitted_at=NOW, consent=ConsentState.UNKNOWN)
            found = codes(batch, connection=connection)
            assert found
            assert set(found) <= CATALOGUE.keys()
