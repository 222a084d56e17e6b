"""Retry schedules for webhook deliveries, status polls and submissions; and fair shares of the lanes.

Webhook deliveries follow a fixed ladder and give up at its end, because that is what receivers were promised.
Polls slow down to a ceiling, because Microsoft throttles frequent calls. Submissions back off, and never come
before a Retry-After. Time and chance are passed in as `now` and `jitter` (0 <= jitter < 1), so that tests can
check every result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

WEBHOOK_LADDER: tuple[timedelta, ...] = (
    timedelta(0),
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
"""The pause before each attempt, counted from the one before: the Standard Webhooks specification's example.
Ten attempts over 75.5 hours, so a receiver that fails on Friday evening is still tried on Monday."""

SPREAD = 0.15
"""Jitter changes a delay by up to this share, so that what failed together is not retried together."""

SHORT_RETRY_AFTER = timedelta(minutes=1)
"""A receiver's Retry-After up to this is honoured in full even on the short first steps of the ladder.
Limited to twice our own delay of seconds, it would use up these steps before the receiver is back."""


def _check_growth(first: timedelta, factor: float, ceiling: timedelta) -> None:
    if first <= timedelta(0):
        raise ValueError("the first pause must be longer than nothing")
    if not factor >= 1:  # not `factor < 1`, which NaN would pass
        raise ValueError("the factor must be at least 1")
    if ceiling < first:
        raise ValueError("the ceiling must not be below the first pause")


@dataclass(frozen=True, slots=True)
class PollPolicy:
    """How a batch's status is polled. No service level is documented: Microsoft's sample takes ten minutes.

    Raises:
        ValueError: an empty pause, a factor below 1, or a ceiling below the first pause.
    """

    first: timedelta = timedelta(seconds=1)
    factor: float = 1.6
    ceiling: timedelta = timedelta(seconds=60)
    deadline: timedelta = timedelta(hours=6)
    """Counted from the submission. After it, the outcome is unknown and is looked up another way."""

    def __post_init__(self) -> None:
        _check_growth(self.first, self.factor, self.ceiling)
        if self.deadline <= timedelta(0):
            raise ValueError("deadline must be longer than nothing")


DEFAULT_POLLS = PollPolicy()


def next_delivery(
    attempts_made: int,
    now: datetime,
    jitter: float,
    retry_after: timedelta | None = None,
    ladder: Sequence[timedelta] = WEBHOOK_LADDER,
) -> datetime | None:
    """The time of the next delivery attempt after `attempts_made` attempts; None if the ladder is used up.

    A Retry-After lengthens the pause to at most twice our own, or SHORT_RETRY_AFTER if that is longer, and
    never shortens it: receivers can neither postpone deliveries for weeks nor ask for more calls. Jitter is
    added last, in both directions; only later if the receiver named the time.
    """
    _check(now, jitter, attempts_made)
    if attempts_made >= len(ladder):
        return None
    own = ladder[attempts_made]
    if retry_after is not None and retry_after > own:
        asked = min(retry_after, max(2 * own, SHORT_RETRY_AFTER))
        return now + asked * (1 + SPREAD * jitter)
    return now + own * _spread(jitter)


def next_poll(polls_made: int, now: datetime, jitter: float, policy: PollPolicy = DEFAULT_POLLS) -> datetime:
    """The time of the next status poll after `polls_made` polls. Ignores the deadline."""
    _check(now, jitter, polls_made)
    return now + _grown(polls_made, policy.first, policy.factor, policy.ceiling) * _spread(jitter)


def is_past_deadline(submitted_at: datetime, now: datetime, policy: PollPolicy = DEFAULT_POLLS) -> bool:
    """Whether polling has reached its deadline, so that the outcome must be found out another way."""
    _check_aware(submitted_at)
    _check_aware(now)
    return now - submitted_at >= policy.deadline


def next_attempt(
    attempts: int,
    now: datetime,
    jitter: float,
    retry_after: timedelta | None = None,
    *,
    first: timedelta = timedelta(seconds=2),
    factor: float = 2.0,
    ceiling: timedelta = timedelta(minutes=5),
) -> datetime:
    """The time of the next submission after `attempts` attempts (1 or more) that may be retried.

    Never before Retry-After, however long: Partner Center counts early retries against the same budget. If
    our own backoff is longer, it applies: Microsoft's throttling guidance asks for that after repeated
    refusals.
    """
    _check(now, jitter, attempts)
    _check_growth(first, factor, ceiling)
    if attempts < 1:
        raise ValueError("a retry needs an attempt before it")
    own = _grown(attempts - 1, first, factor, ceiling) * _spread(jitter)
    return now + (own if retry_after is None else max(own, retry_after))


def share_of(lanes: int, waiting_partners: int, *, kept_free: int = 0) -> int:
    """The most of `lanes` that one partner may hold; at least one.

    `waiting_partners` counts the partners with waiting work, including the one that asks. A partner alone may
    have every lane, because idle lanes help nobody. Among several, each has an equal share, rounded up so
    that no lane stays idle, but at least one lane fewer than there are.

    Running work is never interrupted, so a partner that arrives later waits until a piece of work ends. If
    pieces take long, a partner alone does not get `kept_free` of the lanes.

    Raises:
        ValueError: no lane, a negative number of partners, or a negative number of lanes kept free.
    """
    if lanes < 1:
        raise ValueError("there must be at least one lane")
    if waiting_partners < 0 or kept_free < 0:
        raise ValueError("a count cannot be negative")
    if waiting_partners <= 1:
        return max(1, lanes - kept_free)
    part = -(-lanes // waiting_partners)
    return max(1, min(part, lanes - max(1, kept_free)))


def _grown(steps: int, first: timedelta, factor: float, ceiling: timedelta) -> timedelta:
    # Compared by logarithm, because factor ** steps overflows a float after some hundred polls.
    if factor > 1 and steps * math.log(factor) >= math.log(ceiling / first):
        return ceiling
    return first * factor**steps


def _spread(jitter: float) -> float:
    return 1 - SPREAD + 2 * SPREAD * jitter


def _check(now: datetime, jitter: float, count: int) -> None:
    _check_aware(now)
    if not 0 <= jitter < 1:
        raise ValueError("jitter must be at least 0 and below 1")
    if count < 0:
        raise ValueError("a count cannot be negative")


def _check_aware(moment: datetime) -> None:
    if moment.tzinfo is None:
        raise ValueError("times must carry their zone")
