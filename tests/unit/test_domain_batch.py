"""Batches: their transitions, and which answer belongs to which device."""

from hypothesis import given
from hypothesis import strategies as st

from app.domain.batch import (
    BATCH_TRANSITIONS,
    IN_FLIGHT,
    OPEN_BATCH,
    BatchState,
    SentRow,
    match_answers,
)
from app.domain.registration import UpstreamRow

B = BatchState


def test_every_batch_state_can_be_reached_and_only_the_over_ones_end() -> None:
    assert set(BATCH_TRANSITIONS) == set(B)
    seen, to_see = set(), [B.HELD]
    while to_see:
        state = to_see.pop()
        if state not in seen:
            seen.add(state)
            to_see += BATCH_TRANSITIONS[state]
    assert seen == set(B)
    assert {state for state, targets in BATCH_TRANSITIONS.items() if not targets} == set(B) - OPEN_BATCH


def test_what_is_in_flight_is_never_cancelled_and_always_open() -> None:
    assert IN_FLIGHT < OPEN_BATCH
    assert {old for old, new in BATCH_TRANSITIONS.items() if B.CANCELLED in new} == {B.HELD, B.QUEUED}


# --- answers --------------------------------------------------------------------------------------

VERDICTS = st.sampled_from(
    [(None, None), ("812", "ZtdDeviceNotFound"), ("806", None), (None, "StorageError")]
)
SENT = st.lists(
    st.builds(
        SentRow,
        st.none() | st.sampled_from(["S1", "S2", "S3", "S4", "S5"]),
        st.none() | st.sampled_from(["9999000000001", "9999000000002", "9999000000003"]),
    ),
    max_size=8,
)


def _answer(row: SentRow, verdict: tuple[str | None, str | None]) -> UpstreamRow:
    return UpstreamRow(True, *verdict, serial_number=row.serial_number, product_key=row.product_key)


@given(SENT, st.data())
def test_no_certain_match_is_another_devices_answer_in_whatever_order_answers_come(
    sent: list[SentRow], data: st.DataObject
) -> None:
    verdicts = [data.draw(VERDICTS) for _ in sent]
    shuffled = data.draw(
        st.permutations([_answer(row, verdict) for row, verdict in zip(sent, verdicts, strict=True)])
    )

    matches = match_answers(sent, shuffled)

    assert len(matches) == len(sent)
    for match, verdict in zip(matches, verdicts, strict=True):
        assert match.answer is not None, "nothing is missing"
        if match.certain:
            assert (match.answer.code, match.answer.name) == verdict


@given(SENT, st.data())
def test_missing_and_foreign_answers_never_make_a_wrong_certain_match(
    sent: list[SentRow], data: st.DataObject
) -> None:
    verdicts = [data.draw(VERDICTS) for _ in sent]
    answers = [_answer(row, verdict) for row, verdict in zip(sent, verdicts, strict=True)]
    kept = [answer for answer in answers if data.draw(st.booleans())]
    foreign = _answer(SentRow("S9", "9999000000009"), ("899", "Foreign"))

    for match, row in zip(match_answers(sent, [foreign, *kept]), sent, strict=True):
        if match.answer is not None:
            assert match.answer.name != "Foreign"
            assert (match.answer.serial_number, match.answer.product_key) == (
                row.serial_number,
                row.product_key,
            )


def test_a_row_whose_answer_is_missing_has_none() -> None:
    sent = [SentRow("S1", None), SentRow("S2", None), SentRow(None, None)]
    matches = match_answers(sent, [_answer(sent[0], (None, None))])
    assert [match.answer is not None for match in matches] == [True, False, False]


def test_an_echo_of_one_of_two_keys_is_enough() -> None:
    sent = [SentRow("S1", "9999000000001"), SentRow("S2", "9999000000002")]
    answers = [
        UpstreamRow(True, "812", None, product_key="9999000000002"),
        UpstreamRow(True, None, None, serial_number="S1"),
    ]
    first, second = match_answers(sent, answers)
    assert (first.answer, first.certain) == (answers[1], True)
    assert (second.answer, second.certain) == (answers[0], True)


def test_answers_without_keys_go_by_position_and_are_doubted_where_they_differ() -> None:
    sent = [SentRow(None, None), SentRow("S1", None), SentRow(None, None)]
    keyed = _answer(sent[1], (None, None))
    alike = [UpstreamRow(True, None, None), keyed, UpstreamRow(True, None, None)]
    assert all(match.certain for match in match_answers(sent, alike))
    other = UpstreamRow(True, "802", None)
    doubted = match_answers(sent, [UpstreamRow(True, None, None), keyed, other])
    assert [match.certain for match in doubted] == [False, True, False]
    assert doubted[2].answer == other


def test_two_devices_with_one_serial_number_are_told_apart_or_doubted() -> None:
    sent = [SentRow("S1", None), SentRow("S1", None)]
    differing = [_answer(sent[0], (None, None)), _answer(sent[1], ("808", None))]
    assert [match.certain for match in match_answers(sent, differing)] == [False, False]
    assert [match.answer for match in match_answers(sent, differing[1:])] == [None, None]
    alike = [_answer(sent[0], ("808", None))] * 2
    assert [match.certain for match in match_answers(sent, alike)] == [True, True]
