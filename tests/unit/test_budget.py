"""The throttle budget's policy: what a connection may call, learnt from its answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import budget
from app.domain.budget import Breaker, Budget, BudgetPolicy, Outcome, Pause, Permit, Why

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
NEVER = timedelta()
POLICY = BudgetPolicy()


def entered(known: Budget, now: datetime, timeout: timedelta = NEVER) -> tuple[Budget, Permit]:
    known, decision = budget.enter(known, now, POLICY, timeout)
    assert isinstance(decision, Permit), decision
    return known, decision


def paused(known: Budget, now: datetime, timeout: timedelta = NEVER) -> Pause:
    after, decision = budget.enter(known, now, POLICY, timeout)
    assert isinstance(decision, Pause), decision
    assert after.tokens >= known.tokens
    return decision


def called(known: Budget, now: datetime, outcome: Outcome, retry_after: timedelta | None = None) -> Budget:
    known, permit = entered(known, now)
    return budget.report(known, permit, outcome, now, POLICY, retry_after)


def throttled(now: datetime = NOW, retry_after: timedelta | None = MINUTE) -> Budget:
    return called(budget.fresh(now, POLICY), now, Outcome.THROTTLED, retry_after)


def opened(now: datetime = NOW) -> Budget:
    known = budget.fresh(now, POLICY)
    for _ in range(POLICY.breaker_failures):
        known = called(known, now, Outcome.UNAVAILABLE)
    assert budget.breaker(known, now) is Breaker.OPEN
    return known


def spent(known: Budget, now: datetime) -> Budget:
    while True:
        known, decision = budget.enter(known, now, POLICY, NEVER)
        if isinstance(decision, Pause):
            return known


def calls_at_once(known: Budget, policy: BudgetPolicy) -> int:
    calls = 0
    while True:
        known, decision = budget.enter(known, NOW, policy, NEVER)
        if isinstance(decision, Pause):
            return calls
        calls += 1


# --- the rate -------------------------------------------------------------------------------------


def test_a_new_connection_calls_at_once_until_its_reserve_is_used_and_then_at_its_rate() -> None:
    known = budget.fresh(NOW, POLICY)
    assert calls_at_once(known, POLICY) == POLICY.start * POLICY.reserve == 100
    known = spent(known, NOW)
    assert paused(known, NOW) == Pause(SECOND / 5, Why.RATE)
    assert entered(known, NOW + SECOND / 5)


def test_the_first_minute_stays_below_the_figure_microsoft_names() -> None:
    assert POLICY.start * (POLICY.reserve + 60) < 500


def test_those_who_wait_a_moment_get_one_moment_each() -> None:
    known = spent(budget.fresh(NOW, POLICY), NOW)
    moments = []
    for _ in range(5):
        known, permit = entered(known, NOW, SECOND)
        moments.append(permit.at - NOW)
    assert moments == [SECOND / 5 * n for n in range(1, 6)]
    assert paused(known, NOW, SECOND).wait == SECOND * 1.2


def test_the_rate_doubles_each_second_of_use_until_the_first_429_and_not_beyond_the_ceiling() -> None:
    known, now, rates = spent(budget.fresh(NOW, POLICY), NOW), NOW, []
    for _ in range(6):
        now += SECOND
        known = called(known, now, Outcome.ANSWERED)
        known = called(known, now, Outcome.ANSWERED)
        rates.append(known.rate)
        known = spent(known, now)
    assert rates == [10, 20, 40, 50, 50, 50]


def test_a_rate_that_is_not_used_does_not_grow() -> None:
    known = budget.fresh(NOW, POLICY)
    for minute in range(60):
        known = called(known, NOW + minute * MINUTE, Outcome.ANSWERED)
    assert known.rate == POLICY.start


def test_after_a_429_what_was_lost_is_won_back_in_steps_within_a_minute_of_use() -> None:
    known = throttled(retry_after=SECOND)
    assert known.rate == 2.5
    now, rates = NOW + SECOND, [known.rate]
    for _ in range(60):
        now += SECOND
        known = spent(called(known, now, Outcome.ANSWERED), now)
        rates.append(known.rate)
    steps = {round(after - before, 6) for before, after in pairwise(rates)}
    assert len(steps) == 1
    assert 4.9 < known.rate <= 5.1


def test_what_is_written_down_goes_before_its_turn_and_those_after_it_wait_the_longer() -> None:
    known = spent(budget.fresh(NOW, POLICY), NOW)
    for _ in range(int(budget.OVERDRAFT)):
        known, decision = budget.enter(known, NOW, POLICY, NEVER, overdraft=budget.OVERDRAFT)
        assert decision == Permit(NOW)
    _, decision = budget.enter(known, NOW, POLICY, NEVER, overdraft=budget.OVERDRAFT)
    assert decision == Pause(SECOND / 5, Why.RATE)
    assert paused(known, NOW) == Pause(SECOND, Why.RATE)


def test_neither_retry_after_nor_the_breaker_is_overdrawn() -> None:
    for known in (throttled(), opened()):
        decision = budget.enter(known, NOW, POLICY, NEVER, overdraft=budget.OVERDRAFT)[1]
        assert isinstance(decision, Pause)


# --- 429 ------------------------------------------------------------------------------------------


def test_a_429_halves_the_rate_and_nothing_is_called_before_its_retry_after() -> None:
    known = throttled(retry_after=57 * SECOND)
    assert known.rate == POLICY.start / 2
    assert known.throttled_at == NOW
    almost = NOW + timedelta(seconds=57) - timedelta(microseconds=1)
    assert paused(known, NOW) == Pause(57 * SECOND, Why.RETRY_AFTER)
    assert paused(known, almost).why is Why.RETRY_AFTER
    known, permit = entered(known, NOW + 57 * SECOND)
    assert permit.at == NOW + 57 * SECOND
    assert paused(known, NOW + 57 * SECOND) == Pause(SECOND / 2.5, Why.RATE)


def test_calls_that_were_on_their_way_together_halve_the_rate_once() -> None:
    known, permits = budget.fresh(NOW, POLICY), []
    for _ in range(8):
        known, permit = entered(known, NOW)
        permits.append(permit)
    for n, permit in enumerate(permits):
        known = budget.report(known, permit, Outcome.THROTTLED, NOW + n * SECOND, POLICY, 30 * SECOND)
    assert known.rate == POLICY.start / 2
    assert known.blocked_until == NOW + 37 * SECOND


def test_an_answer_to_a_call_from_before_the_429_does_not_raise_the_rate() -> None:
    known, early = entered(budget.fresh(NOW, POLICY), NOW)
    known = spent(called(known, NOW + SECOND, Outcome.THROTTLED, SECOND), NOW + 2 * SECOND)
    late = NOW + 9 * SECOND
    assert budget.report(known, early, Outcome.ANSWERED, late, POLICY).rate == known.rate


def test_a_shorter_retry_after_does_not_end_a_longer_one() -> None:
    known, permit = entered(budget.fresh(NOW, POLICY), NOW)
    known = budget.report(known, permit, Outcome.THROTTLED, NOW, POLICY, MINUTE)
    known = budget.report(known, permit, Outcome.THROTTLED, NOW, POLICY, SECOND)
    assert known.blocked_until == NOW + MINUTE


def test_a_429_without_a_time_pauses_a_little() -> None:
    assert throttled(retry_after=None).blocked_until == NOW + budget.UNNAMED_PAUSE


def test_a_call_that_waits_for_its_moment_does_not_go_when_a_429_comes_meanwhile() -> None:
    known, early = entered(budget.fresh(NOW, POLICY), NOW)
    known, waiting = entered(spent(known, NOW), NOW, SECOND)
    assert budget.recheck(known, waiting, waiting.at) is None
    known = budget.report(known, early, Outcome.THROTTLED, NOW, POLICY, MINUTE)
    assert budget.recheck(known, waiting, waiting.at) == Pause(MINUTE - SECOND / 5, Why.RETRY_AFTER)


# --- the breaker ----------------------------------------------------------------------------------


def test_the_breaker_opens_after_so_many_unavailable_answers_in_a_row() -> None:
    known = budget.fresh(NOW, POLICY)
    for _ in range(POLICY.breaker_failures - 1):
        known = called(known, NOW, Outcome.UNAVAILABLE)
    known = called(known, NOW, Outcome.ANSWERED)
    for _ in range(POLICY.breaker_failures - 1):
        known = called(known, NOW, Outcome.UNAVAILABLE)
    assert budget.breaker(known, NOW) is Breaker.CLOSED
    known = called(known, NOW, Outcome.UNAVAILABLE)
    assert budget.breaker(known, NOW) is Breaker.OPEN
    assert paused(known, NOW, SECOND) == Pause(POLICY.breaker_pause, Why.BREAKER)


def test_an_open_breaker_lets_one_probe_through_whose_success_closes_it() -> None:
    now = NOW + POLICY.breaker_pause
    known, probe = entered(opened(), now)
    assert probe.probe
    assert budget.breaker(known, now) is Breaker.HALF_OPEN
    assert paused(known, now).why is Why.BREAKER
    known = budget.report(known, probe, Outcome.ANSWERED, now, POLICY)
    assert budget.breaker(known, now) is Breaker.CLOSED
    assert not entered(known, now)[1].probe


def test_a_call_past_the_breaker_goes_while_it_is_open_or_probed_and_its_answer_counts() -> None:
    for known, now in ((opened(), NOW), (entered(opened(), NOW + POLICY.breaker_pause)[0], NOW + MINUTE)):
        known, permit = budget.enter(known, now, POLICY, NEVER, past_breaker=True)
        assert isinstance(permit, Permit)
        assert permit.probe
        assert budget.recheck(known, permit, now) is None
        known = budget.report(known, permit, Outcome.ANSWERED, now, POLICY)
        assert budget.breaker(known, now) is Breaker.CLOSED


def test_a_call_past_the_breaker_still_waits_for_retry_after() -> None:
    _, decision = budget.enter(throttled(), NOW, POLICY, NEVER, past_breaker=True)
    assert isinstance(decision, Pause)
    assert decision.why is Why.RETRY_AFTER


def test_the_pause_doubles_with_each_probe_that_fails_up_to_its_ceiling() -> None:
    known, now, pauses = opened(), NOW, []
    for _ in range(7):
        assert known.open_until is not None
        pauses.append((known.open_until - now) / SECOND)
        now = known.open_until
        known = called(known, now, Outcome.UNAVAILABLE)
    assert pauses == [5, 10, 20, 40, 60, 60, 60]


def test_late_failures_of_calls_from_before_do_not_lengthen_the_pause() -> None:
    known, late = entered(budget.fresh(NOW, POLICY), NOW)
    for _ in range(POLICY.breaker_failures):
        known = called(known, NOW, Outcome.UNAVAILABLE)
    after = budget.report(known, late, Outcome.UNAVAILABLE, NOW + SECOND, POLICY)
    assert after == known


def test_a_429_is_an_answer_and_closes_the_breaker() -> None:
    now = NOW + POLICY.breaker_pause
    known = called(opened(), now, Outcome.THROTTLED, MINUTE)
    assert budget.breaker(known, now) is Breaker.CLOSED
    assert paused(known, now) == Pause(MINUTE, Why.RETRY_AFTER)


def test_a_probe_whose_worker_died_is_given_up_after_a_while() -> None:
    now = NOW + POLICY.breaker_pause
    known, _ = entered(opened(), now)
    assert paused(known, now + POLICY.probe_timeout - SECOND).why is Why.BREAKER
    assert entered(known, now + POLICY.probe_timeout)[1].probe


# --- without Redis --------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [POLICY.floor, 2.5, POLICY.start, POLICY.ceiling])
def test_four_workers_without_redis_together_call_no_faster_than_the_rate_they_last_knew(rate: float) -> None:
    own = POLICY.alone()
    known = spent(replace(budget.fresh(NOW, POLICY), rate=rate), NOW)
    known = replace(known, tokens=0.0, halved_at=NOW + MINUTE)  # and so does not grow
    calls, now = 0, NOW
    while now < NOW + 10 * MINUTE:
        known, decision = budget.enter(known, now, own, NEVER)
        if isinstance(decision, Pause):
            now += decision.wait
        else:
            calls += 1
    most = min(rate, POLICY.start) * 600 / 4
    assert most - 1 <= calls <= most + 1


def test_without_redis_less_is_saved_up_and_one_call_goes_at_the_least() -> None:
    assert calls_at_once(budget.fresh(NOW, POLICY), POLICY.alone()) == int(POLICY.start * 2 / 4)
    slow = replace(budget.fresh(NOW, POLICY), rate=POLICY.floor)
    assert calls_at_once(slow, POLICY.alone()) == 1


def test_without_redis_a_submission_of_several_calls_is_not_stopped_half_way() -> None:
    known, own = spent(budget.fresh(NOW, POLICY), NOW), POLICY.alone()
    for _ in range(int(budget.OVERDRAFT)):
        known, decision = budget.enter(known, NOW, own, NEVER, overdraft=budget.OVERDRAFT)
        assert decision == Permit(NOW)
    assert isinstance(budget.enter(known, NOW, own, NEVER, overdraft=budget.OVERDRAFT)[1], Pause)


def test_without_redis_neither_a_retry_after_nor_an_open_breaker_is_forgotten() -> None:
    for known, why in ((throttled(), Why.RETRY_AFTER), (opened(), Why.BREAKER)):
        _, decision = budget.enter(known, NOW, POLICY.alone(), NEVER)
        assert isinstance(decision, Pause)
        assert decision.why is why


# --- always ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [{"floor": 0}, {"start": 60}, {"floor": 6}, {"floor": -1}])
def test_a_policy_that_would_mean_nothing_or_everything_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="floor"):
        BudgetPolicy(**values)  # type: ignore[arg-type]


Event = tuple[float, Outcome, float | None]
EVENTS = st.lists(
    st.tuples(
        st.floats(0, 200),
        st.sampled_from(Outcome),
        st.none() | st.floats(0, 300),
    ),
    max_size=60,
)


@given(events=EVENTS, timeout=st.sampled_from([0.0, 1.0, 10.0]))
def test_whatever_happens_no_call_goes_before_its_time_and_one_goes_in_the_end(
    events: list[Event], timeout: float
) -> None:
    known, now = budget.fresh(NOW, POLICY), NOW
    forbidden_until = NOW
    for after, outcome, retry_after in events:
        now += timedelta(seconds=after)
        known, decision = budget.enter(known, now, POLICY, timedelta(seconds=timeout))
        assert POLICY.floor <= known.rate <= POLICY.ceiling
        if isinstance(decision, Pause):
            assert decision.wait > timedelta(seconds=timeout) or decision.why is Why.BREAKER
            continue
        assert now <= decision.at <= now + timedelta(seconds=timeout)
        assert decision.at >= forbidden_until
        now = decision.at
        asked = None if retry_after is None else timedelta(seconds=retry_after)
        known = budget.report(known, decision, outcome, now, POLICY, asked)
        if outcome is Outcome.THROTTLED:
            forbidden_until = max(forbidden_until, now + (asked or timedelta()))
    # A connection is never stopped for good: a call that comes back when told gets through.
    for _ in range(200):
        _, decision = budget.enter(known, now, POLICY, NEVER)
        if isinstance(decision, Permit):
            return
        now += decision.wait
    raise AssertionError("never again")


@given(events=EVENTS, back=st.floats(1, 10**7))
def test_a_clock_that_jumps_back_stops_a_connection_for_a_day_at_most(
    events: list[Event], back: float
) -> None:
    known, now = budget.fresh(NOW, POLICY), NOW
    for after, outcome, retry_after in events:
        now += timedelta(seconds=after)
        known, decision = budget.enter(known, now, POLICY, SECOND)
        if isinstance(decision, Permit):
            asked = None if retry_after is None else timedelta(seconds=retry_after)
            known = budget.report(known, decision, outcome, now, POLICY, asked)
    _, decision = budget.enter(known, now - timedelta(seconds=back), POLICY, NEVER)
    if isinstance(decision, Pause):
        assert decision.wait <= budget.LONGEST_BLOCK + MINUTE


@dataclass
class Window:
    """A service that allows so many calls in each window of a minute, refused ones included."""

    allowed: int
    length: timedelta = MINUTE
    since: datetime = NOW
    count: int = 0
    served: int = 0
    refused: list[datetime] = field(default_factory=list)

    def answer(self, now: datetime) -> timedelta | None:
        if now - self.since >= self.length:
            self.since, self.count = now, 0
        self.count += 1
        if self.count <= self.allowed:
            self.served += 1
            return None
        self.refused.append(now)
        return timedelta(seconds=-((now - self.since - self.length) // SECOND))


def saturate(service: Window, minutes: int, observe: Callable[[Budget], None] | None = None) -> None:
    """One caller after the other, always with more to do, each coming back when told."""
    known, now = budget.fresh(NOW, POLICY), NOW
    while now < NOW + minutes * MINUTE:
        known, decision = budget.enter(known, now, POLICY, SECOND)
        if isinstance(decision, Pause):
            now += decision.wait
            continue
        now = max(now, decision.at)
        retry_after = service.answer(now)
        outcome = Outcome.ANSWERED if retry_after is None else Outcome.THROTTLED
        known = budget.report(known, decision, outcome, now, POLICY, retry_after)
        if observe is not None:
            observe(known)


@pytest.mark.parametrize("allowed", [20, 100, 500, 1000])
def test_whatever_the_limit_is_it_is_used_well_and_refusals_stay_few(allowed: int) -> None:
    service, minutes = Window(allowed), 30
    saturate(service, minutes)
    assert len(service.refused) <= minutes
    assert service.served >= 0.9 * allowed * minutes


def test_without_a_limit_the_ceiling_is_reached_and_kept() -> None:
    service = Window(10**9)
    seen: list[float] = []
    saturate(service, 2, lambda known: seen.append(known.rate))
    assert seen[-1] == POLICY.ceiling
    assert service.served > 110 * POLICY.ceiling


def test_an_answer_that_teaches_nothing_is_the_same_value_so_that_nothing_is_written() -> None:
    known, permit = entered(budget.fresh(NOW, POLICY), NOW)
    full = replace(known, at=NOW + SECOND)
    assert budget.report(full, permit, Outcome.ANSWERED, NOW + SECOND, POLICY) is full
    failing = replace(full, failures=1)
    assert budget.report(failing, permit, Outcome.ANSWERED, NOW + SECOND, POLICY).failures == 0


def test_a_block_that_was_over_before_the_budget_changed_gives_no_tokens() -> None:
    """A process that was told it while Redis was down brings it long after others have gone on."""
    known = replace(spent(budget.fresh(NOW, POLICY), NOW), at=NOW)
    assert budget.blocked(known, NOW - MINUTE) == known
    assert paused(budget.blocked(known, NOW - MINUTE), NOW).why is Why.RATE
