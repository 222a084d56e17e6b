"""The throttle budget of one connection: call rate, Retry-After and circuit breaker, learnt from responses.

Pure, so that every worker decides alike: the same functions run on the shared budget in Redis and, while
Redis is down, on each worker's last known copy. Three things delay a call; the longest delay applies. A token
bucket's rate doubles until the first 429, which halves it; then it grows in small steps. A Retry-After stops
all calls until it ends. A circuit breaker opens after failures, and allows one probe after a pause that grows
with each failed probe.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

SECOND = timedelta(seconds=1)
RESERVE = 20.0
"""Seconds of calls that may be saved up. With 5 calls/s: 100 at once and then 5 a second are 400 in
the first minute, below the 500 that Microsoft names for its customer and order resources."""
RECOVERY = 60.0
"""Seconds of use in which the rate regains what a 429 took. Microsoft counts by the minute, so the rate
reaches the limit about once a minute, whatever the limit is."""
SMALLEST_STEP = 0.02
"""The least calls/s regained per second of use: from 0.2 to 5 calls/s takes four minutes."""
LONGEST_GROWTH = 10.0
"""The longest time that one increase counts: a long pause between two calls proves little."""
UNNAMED_PAUSE = timedelta(seconds=5)
"""The pause after a 429 without Retry-After."""
LONGEST_BLOCK = timedelta(hours=25)
"""A block that ends later than this comes from a clock that went backwards, not from a Retry-After."""
OVERDRAFT = 4.0
"""Calls that may be made before their tokens are available, because delaying them costs more. Later calls
then wait longer. Without it, a step of two calls would spend each token on its first call forever."""
PROBE_PAUSE = timedelta(seconds=2)
"""When to come back while another call probes."""
TURN_TIMEOUT = timedelta(seconds=1)
"""The longest wait for a turn. So at most as many lanes wait as calls are made in this time."""
ALONE_COST = 4.0
"""Tokens that a call takes without Redis. Four workers that cannot see each other together keep the rate."""
ALONE_RESERVE = 2.0
"""Seconds of calls that may be saved up without Redis."""


@dataclass(frozen=True, slots=True)
class BudgetPolicy:
    """Rates in calls per second.

    Raises:
        ValueError: a floor of zero, or rates that are not floor <= start <= ceiling.
    """

    start: float = 5.0
    floor: float = 0.2
    ceiling: float = 50.0
    reserve: float = RESERVE
    breaker_failures: int = 5
    """Consecutive failed calls that open the breaker."""
    breaker_pause: timedelta = timedelta(seconds=5)
    """The pause before the first probe. Each failed probe doubles it."""
    breaker_ceiling: timedelta = timedelta(seconds=60)
    probe_timeout: timedelta = timedelta(seconds=90)
    """A probe is given up after this time, because its worker died. No call takes longer."""
    cost: float = 1.0
    """Tokens that one call takes."""

    def __post_init__(self) -> None:
        if not 0 < self.floor <= self.start <= self.ceiling:
            raise ValueError("rates must be floor <= start <= ceiling, and the floor more than nothing")

    def alone(self) -> BudgetPolicy:
        """The policy of a worker that cannot see the others' calls."""
        return replace(self, ceiling=self.start, reserve=ALONE_RESERVE, cost=ALONE_COST)


@dataclass(frozen=True, slots=True)
class Budget:
    """The state of one connection's budget. Immutable: each change makes a new value."""

    rate: float
    tokens: float
    """Tokens at the time `at`. Below zero: promised to waiting calls."""
    at: datetime
    grown_at: datetime
    step: float = 0.0
    """Calls/s regained per second of use; 0 until the first 429."""
    halved_at: datetime | None = None
    throttled_at: datetime | None = None
    blocked_until: datetime | None = None
    failures: int = 0
    opened: int = 0
    """How many times in a row the breaker has opened."""
    open_until: datetime | None = None
    """None: the breaker is closed."""
    probing_until: datetime | None = None


class Breaker(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"  # the next call, or one that is being made, is the probe


class Why(StrEnum):
    """Reasons to delay a call."""

    RATE = "rate"
    RETRY_AFTER = "retry_after"
    BREAKER = "breaker"


class Outcome(StrEnum):
    """What a call's result says about the connection."""

    ANSWERED = "answered"  # any response except 429 and 5xx
    THROTTLED = "throttled"  # 429
    UNAVAILABLE = "unavailable"  # 5xx, timeout, no connection


class Priority(StrEnum):
    """How long a call may be delayed."""

    FIRST = "first"  # as long as necessary: its work is retried
    NEXT = "next"  # the next page of a listing, which would start over: waits longer for its turn
    ASKED = "asked"  # a person tests the connection: the breaker does not delay it
    BEGUN = "begun"  # part of a submission that has begun: may be made before its turn


@dataclass(frozen=True, slots=True)
class Permit:
    at: datetime
    """The earliest time for the call."""
    probe: bool = False
    past_breaker: bool = False
    """The breaker does not delay this call, even if it opens while the call waits."""


@dataclass(frozen=True, slots=True)
class Pause:
    """The call must wait. Nothing was taken from the budget."""

    wait: timedelta
    why: Why


def fresh(now: datetime, policy: BudgetPolicy) -> Budget:
    return Budget(policy.start, _capacity(policy.start, policy), now, now)


def enter(
    budget: Budget,
    now: datetime,
    policy: BudgetPolicy,
    timeout: timedelta,
    *,
    overdraft: float = 0.0,
    past_breaker: bool = False,
) -> tuple[Budget, Permit | Pause]:
    """A permit for a call within `timeout`, or the pause to wait first.

    `overdraft`: calls that may go before their tokens. It does not override a Retry-After or the breaker.
    `past_breaker`: the call is made as a probe even if the breaker is open or another probe runs. A
    Retry-After still applies.
    """
    budget = _at(budget, now, policy)
    probe = budget.open_until is not None
    if not past_breaker and (pause := _broken(budget, now)) is not None:
        return budget, pause
    blocked = _blocked_for(budget, now)
    missing = max(0.0, policy.cost * (1.0 - overdraft) - budget.tokens) / budget.rate
    goes_at = max((now if overdraft else budget.at) + timedelta(seconds=missing), now + blocked)
    if goes_at - now > timeout:
        why = Why.RETRY_AFTER if blocked else Why.RATE
        return budget, Pause(goes_at - now, why)
    taken = replace(
        budget,
        tokens=budget.tokens - policy.cost,
        probing_until=goes_at + policy.probe_timeout if probe else None,
    )
    return taken, Permit(goes_at, probe, past_breaker)


def _broken(budget: Budget, now: datetime) -> Pause | None:
    """The pause because of an open breaker or a running probe, if any."""
    if budget.open_until is not None and now < budget.open_until:
        return Pause(max(budget.open_until - now, _blocked_for(budget, now)), Why.BREAKER)
    if budget.probing_until is not None and now < budget.probing_until:
        return Pause(min(budget.probing_until - now, PROBE_PAUSE), Why.BREAKER)
    return None


def recheck(budget: Budget, permit: Permit, now: datetime) -> Pause | None:
    """Checks after a wait whether anything new delays this call."""
    if blocked := _blocked_for(budget, now):
        return Pause(blocked, Why.RETRY_AFTER)
    if now < permit.at:
        return Pause(permit.at - now, Why.RATE)
    if not permit.past_breaker and budget.open_until is not None and now < budget.open_until:
        return Pause(budget.open_until - now, Why.BREAKER)
    return None


def report(
    budget: Budget,
    permit: Permit,
    outcome: Outcome,
    now: datetime,
    policy: BudgetPolicy,
    retry_after: timedelta | None = None,
) -> Budget:
    """The budget after a call with this permit. `retry_after` counts from `now`.

    Returns the same object if nothing changed, so that callers need not write it.
    """
    present = _at(budget, now, policy)
    match outcome:
        case Outcome.ANSWERED:
            after = _grown(_closed(present), permit, now, policy)
        case Outcome.THROTTLED:
            after = _slowed(_closed(present), permit, now, policy, retry_after)
        case Outcome.UNAVAILABLE:
            after = _failed(present, permit, now, policy)
    return budget if after == present else after


def breaker(budget: Budget, now: datetime) -> Breaker:
    if budget.open_until is None:
        return Breaker.CLOSED
    return Breaker.OPEN if now < budget.open_until else Breaker.HALF_OPEN


def opened_since(budget: Budget, policy: BudgetPolicy) -> datetime | None:
    """The time since when the breaker has been open, at the latest; None while it is closed.

    Computed from the breaker's pauses. Probes took additional time, so it may have opened earlier.
    """
    if budget.open_until is None:
        return None
    growing = min(budget.opened, 30)
    pauses = [min(policy.breaker_pause * 2**n, policy.breaker_ceiling) for n in range(growing)]
    return budget.open_until - sum(pauses, timedelta()) - (budget.opened - growing) * policy.breaker_ceiling


def _capacity(rate: float, policy: BudgetPolicy) -> float:
    return max(policy.cost, rate * policy.reserve)


def _blocked_for(budget: Budget, now: datetime) -> timedelta:
    if budget.blocked_until is None:
        return timedelta()
    return max(budget.blocked_until - now, timedelta())


def _at(budget: Budget, now: datetime, policy: BudgetPolicy) -> Budget:
    """The budget with tokens up to `now`, limited by this clock and by the policy, which may change."""
    rate = min(max(budget.rate, policy.floor), policy.ceiling)
    blocked_until = budget.blocked_until
    if blocked_until is not None and blocked_until > now + LONGEST_BLOCK:
        blocked_until = None
    at = min(budget.at, max(now, blocked_until or now))
    tokens = budget.tokens + max(0.0, (now - at) / SECOND) * rate
    return replace(
        budget,
        rate=rate,
        tokens=min(tokens, _capacity(rate, policy)),
        at=max(at, now),
        grown_at=min(budget.grown_at, max(at, now)),
        blocked_until=blocked_until,
        open_until=_within(budget.open_until, now + policy.breaker_ceiling),
        probing_until=_within(budget.probing_until, now + policy.probe_timeout),
    )


def _within(moment: datetime | None, latest: datetime) -> datetime | None:
    return None if moment is None else min(moment, latest)


def _closed(budget: Budget) -> Budget:
    return replace(budget, failures=0, opened=0, open_until=None, probing_until=None)


def _grown(budget: Budget, permit: Permit, now: datetime, policy: BudgetPolicy) -> Budget:
    """Raises the rate, at most once a second, if it was the limit and the call was made after the last
    429."""
    clean = budget.halved_at is None or permit.at > budget.halved_at
    used = budget.tokens <= _capacity(budget.rate, policy) / 2
    since = (now - budget.grown_at) / SECOND
    if not (clean and used) or since < 1.0:
        return budget
    more = budget.step * min(since, LONGEST_GROWTH) if budget.halved_at else budget.rate
    return replace(budget, rate=min(budget.rate + more, policy.ceiling), grown_at=now)


def _slowed(
    budget: Budget, permit: Permit, now: datetime, policy: BudgetPolicy, retry_after: timedelta | None
) -> Budget:
    """Halves the rate, once for all calls that were under way together."""
    if budget.halved_at is None or permit.at > budget.halved_at:
        budget = _halved(budget, now, policy)
    pause = UNNAMED_PAUSE if retry_after is None else min(retry_after, LONGEST_BLOCK)
    return blocked(replace(budget, throttled_at=now), now + pause)


def _halved(budget: Budget, now: datetime, policy: BudgetPolicy) -> Budget:
    rate = max(budget.rate / 2, policy.floor)
    return replace(budget, rate=rate, halved_at=now, step=max(rate / RECOVERY, SMALLEST_STEP))


def blocked(budget: Budget, until: datetime | None) -> Budget:
    """Delays calls until `until`. One call may be made then, the others follow at the rate."""
    # Ignore a block that ended before the last change, or tokens would be counted twice.
    if until is None or until <= budget.at:
        return budget
    if budget.blocked_until is not None and budget.blocked_until >= until:
        return budget
    return replace(budget, blocked_until=until, tokens=min(budget.tokens, 1.0), at=until, grown_at=until)


def _failed(budget: Budget, permit: Permit, now: datetime, policy: BudgetPolicy) -> Budget:
    """Counts a failure. Failures from before the breaker opened change nothing."""
    if budget.open_until is not None and not permit.probe:
        return budget
    failures = budget.failures + 1
    if budget.open_until is None and failures < policy.breaker_failures:
        return replace(budget, failures=failures)
    pause = min(policy.breaker_pause * 2 ** min(budget.opened, 30), policy.breaker_ceiling)
    return replace(
        budget, failures=failures, opened=budget.opened + 1, open_until=now + pause, probing_until=None
    )
