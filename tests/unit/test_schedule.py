"""The three schedules: what they promise for every clock, every chance and every count."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.schedule import (
    SHORT_RETRY_AFTER,
    SPREAD,
    WEBHOOK_LADDER,
    PollPolicy,
    is_past_deadline,
    next_attempt,
    next_delivery,
    next_poll,
    share_of,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MIDDLE = 0.5  # the jitter that changes nothing
TICK = timedelta(microseconds=2)  # what rounding to microseconds may cost

jitters = st.floats(0, 1, exclude_max=True)
pauses = st.timedeltas(timedelta(0), timedelta(days=7))


def seconds(moment: datetime | None) -> float:
    assert moment is not None
    return (moment - NOW).total_seconds()


def test_deliveries_follow_the_standard_webhooks_ladder() -> None:
    hour = 3600
    expected = [0, 5, 300, 1800, 2 * hour, 5 * hour, 10 * hour, 14 * hour, 20 * hour, 24 * hour]
    assert [seconds(next_delivery(made, NOW, MIDDLE)) for made in range(10)] == expected


def test_the_first_delivery_is_due_at_once_whatever_the_jitter() -> None:
    assert next_delivery(0, NOW, 0.0) == next_delivery(0, NOW, 0.99) == NOW


@given(made=st.integers(len(WEBHOOK_LADDER), 10_000), jitter=jitters, retry_after=st.none() | pauses)
def test_a_used_up_ladder_stays_used_up_even_if_the_receiver_asks_for_more(
    made: int, jitter: float, retry_after: timedelta | None
) -> None:
    assert next_delivery(made, NOW, jitter, retry_after) is None


@given(made=st.integers(0, len(WEBHOOK_LADDER) - 1), jitter=jitters)
def test_jitter_moves_a_delivery_by_no_more_than_its_share(made: int, jitter: float) -> None:
    due = next_delivery(made, NOW, jitter)
    assert due is not None
    assert abs(due - NOW - WEBHOOK_LADDER[made]) <= WEBHOOK_LADDER[made] * SPREAD + TICK


def test_jitter_moves_a_delivery_both_ways() -> None:
    assert seconds(next_delivery(2, NOW, 0.0)) == pytest.approx(300 * (1 - SPREAD))
    assert seconds(next_delivery(2, NOW, 0.999999)) == pytest.approx(300 * (1 + SPREAD), rel=1e-4)


@given(made=st.integers(0, len(WEBHOOK_LADDER) - 1), jitter=jitters, retry_after=pauses)
def test_retry_after_is_honoured_up_to_twice_our_own_delay_and_never_shortens_it(
    made: int, jitter: float, retry_after: timedelta
) -> None:
    own, due = WEBHOOK_LADDER[made], next_delivery(made, NOW, jitter, retry_after)
    assert due is not None
    longest = max(2 * own, SHORT_RETRY_AFTER)
    if retry_after > own:
        assert due - NOW >= min(retry_after, longest)
    assert own * (1 - SPREAD) - TICK <= due - NOW <= longest * (1 + SPREAD) + TICK


@pytest.mark.parametrize(
    ("made", "asked", "granted"),
    [
        (1, 30, 30),  # 5 s rung: more than twice our own, but short enough to be taken at its word
        (1, 3600, 60),
        (2, 10, 300),  # shorter than ours changes nothing
        (2, 420, 420),
        (2, 86_400, 600),
        (2, -5, 300),
    ],
)
def test_retry_after_by_example(made: int, asked: int, granted: int) -> None:
    jitter = 0.0 if asked > WEBHOOK_LADDER[made].total_seconds() else MIDDLE
    assert seconds(next_delivery(made, NOW, jitter, timedelta(seconds=asked))) == granted


def test_a_ladder_of_ones_own_is_followed() -> None:
    ladder = (timedelta(seconds=1),)
    assert seconds(next_delivery(0, NOW, MIDDLE, ladder=ladder)) == 1
    assert next_delivery(1, NOW, MIDDLE, ladder=ladder) is None


def test_polls_grow_from_one_second_to_a_minute() -> None:
    delays = [seconds(next_poll(made, NOW, MIDDLE)) for made in range(12)]
    assert delays[:4] == pytest.approx([1, 1.6, 2.56, 4.096])
    assert delays[-3:] == [60, 60, 60]
    assert delays == sorted(delays)


@given(
    made=st.integers(0, 10**6),
    jitter=jitters,
    first=st.timedeltas(timedelta(milliseconds=1), timedelta(minutes=1)),
    factor=st.floats(1, 100),
    more=st.timedeltas(timedelta(0), timedelta(days=1)),
)
def test_a_poll_stays_between_its_first_pause_and_its_ceiling_however_many_there_were(
    made: int, jitter: float, first: timedelta, factor: float, more: timedelta
) -> None:
    policy = PollPolicy(first=first, factor=factor, ceiling=first + more)
    delay = next_poll(made, NOW, jitter, policy) - NOW
    assert first * (1 - SPREAD) - TICK <= delay <= policy.ceiling * (1 + SPREAD) + TICK


def test_the_deadline_counts_from_the_submission_and_includes_its_moment() -> None:
    policy = PollPolicy(deadline=timedelta(hours=1))
    assert not is_past_deadline(NOW, NOW + timedelta(minutes=59, seconds=59), policy)
    assert is_past_deadline(NOW, NOW + timedelta(hours=1), policy)


@pytest.mark.parametrize(
    "change",
    [
        {"first": timedelta(0)},
        {"factor": 0.9},
        {"factor": float("nan")},
        {"ceiling": timedelta(milliseconds=999)},
        {"deadline": timedelta(0)},
    ],
)
def test_a_policy_that_cannot_work_is_refused(change: dict[str, timedelta]) -> None:
    with pytest.raises(ValueError):
        PollPolicy(**change)  # type: ignore[arg-type]


def test_submissions_back_off_by_doubling_to_five_minutes() -> None:
    delays = [seconds(next_attempt(made, NOW, MIDDLE)) for made in range(1, 12)]
    assert delays == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


@given(made=st.integers(1, 10**6), jitter=jitters, retry_after=pauses)
def test_a_submission_never_comes_before_its_retry_after_nor_before_its_own_backoff(
    made: int, jitter: float, retry_after: timedelta
) -> None:
    due = next_attempt(made, NOW, jitter, retry_after)
    own = next_attempt(made, NOW, jitter)
    assert due == max(own, NOW + retry_after)
    assert own - NOW <= timedelta(minutes=5) * (1 + SPREAD) + TICK


@pytest.mark.parametrize("jitter", [-0.01, 1.0, float("nan")])
def test_a_jitter_outside_its_range_is_refused(jitter: float) -> None:
    with pytest.raises(ValueError, match="jitter"):
        next_delivery(1, NOW, jitter)
    with pytest.raises(ValueError, match="jitter"):
        next_poll(1, NOW, jitter)
    with pytest.raises(ValueError, match="jitter"):
        next_attempt(1, NOW, jitter)


def test_a_time_without_a_zone_or_a_senseless_count_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        next_poll(1, NOW.replace(tzinfo=None), MIDDLE)
    with pytest.raises(ValueError, match="zone"):
        is_past_deadline(NOW.replace(tzinfo=None), NOW)
    with pytest.raises(ValueError, match="negative"):
        next_delivery(-1, NOW, MIDDLE)
    with pytest.raises(ValueError, match="attempt before"):
        next_attempt(0, NOW, MIDDLE)


@pytest.mark.parametrize(
    ("lanes", "waiting", "share"),
    [
        (1, 0, 1),
        (1, 1, 1),
        (1, 5, 1),
        (4, 0, 4),
        (4, 1, 4),
        (2, 2, 1),
        (3, 2, 2),
        (4, 2, 2),
        (5, 2, 3),
        (4, 3, 2),
        (4, 4, 1),
        (4, 5000, 1),
        (20, 3, 7),
    ],
)
def test_partner_may_hold_an_equal_part_of_the_lanes_while_others_wait(
    lanes: int, waiting: int, share: int
) -> None:
    assert share_of(lanes, waiting) == share


def test_no_partner_takes_the_last_lane_while_another_waits() -> None:
    for lanes in range(2, 40):
        for waiting in range(2, 40):
            share = share_of(lanes, waiting)
            assert 1 <= share < lanes
            assert share * waiting >= lanes, "a lane would idle although work waits"


def test_lanes_kept_free_are_out_of_reach_for_a_partner_that_waits_alone() -> None:
    assert [share_of(lanes, 1, kept_free=1) for lanes in (1, 2, 3, 4)] == [1, 1, 2, 3]
    assert share_of(5, 2, kept_free=3) == 2
    assert share_of(2, 9, kept_free=7) == 1


@pytest.mark.parametrize(("lanes", "waiting", "kept_free"), [(0, 1, 0), (-1, 1, 0), (4, -1, 0), (4, 1, -1)])
def test_share_of_refuses_impossible_numbers(lanes: int, waiting: int, kept_free: int) -> None:
    with pytest.raises(ValueError):
        share_of(lanes, waiting, kept_free=kept_free)
