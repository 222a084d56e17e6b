"""Worker liveness: who may declare a worker dead."""

from datetime import UTC, datetime, timedelta

import pytest

from app.domain.presence import Presence

START = datetime(2030, 1, 1, tzinfo=UTC)
SILENCE = timedelta(seconds=20)


def after(*beats: float) -> Presence:
    presence = Presence("host:1:aa", SILENCE)
    for beat in beats:
        presence.note(START + timedelta(seconds=beat))
    return presence


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("beats", "now", "judges", "why"),
    [
        ((), 100, False, "never heard itself"),
        ((0,), 0, False, "has just started"),
        ((0, 5, 10, 15), 19.9, False, "not yet heard for long enough"),
        ((0, 5, 10, 15), 20, True, "heard all the time"),
        ((0, 10, 20), 20, True, "one heartbeat was missed: no gap"),
        ((0, 5, 10, 15, 20), 30, True, "its last one is not long ago"),
        ((0, 5, 10, 15, 20), 30.1, False, "it cannot be heard itself just now"),
        ((0, 5, 10, 15, 60), 60, False, "the database was unavailable, or the worker was frozen"),
        ((0, 5, 10, 15, 60, 65, 70, 75), 79.9, False, "others may not have been heard since"),
        ((0, 5, 10, 15, 60, 65, 70, 75), 80, True, "they have had the whole time since"),
        ((0, 5, 10, 15, 3620), 3620, False, "the database's clock was set forward"),
        ((3600, 3605, 3610, 3615, 20, 25), 25, False, "the database's clock was set back"),
        ((3600, 3605, 3610, 3615, 20, 25, 30, 35, 40), 40, True, "and it has been heard since"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_only_who_has_been_heard_all_the_time_calls_others_dead(
    beats: tuple[float, ...], now: float, judges: bool, why: str
) -> None:
    assert after(*beats).may_judge(at(now)) is judges, why
