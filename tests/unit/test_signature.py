"""Our signatures, judged by the public library a receiver would use."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from app.domain.signature import new_secret, sign

BODY = json.dumps(
    {"type": "order.completed", "data": {"reference": "PO-1 – Zürich"}}, ensure_ascii=False
).encode()
SECRET = new_secret(bytes(range(32)))
OTHER = new_secret(bytes(range(32, 64)))


def headers(*secrets: str, at: datetime | int | None = None, body: bytes = BODY) -> dict[str, str]:
    return sign(secrets or (SECRET,), "msg_1", at if at is not None else datetime.now(UTC), body)


def test_the_public_library_accepts_what_we_sign() -> None:
    assert Webhook(SECRET).verify(BODY, headers()) == json.loads(BODY)


def test_the_specifications_own_example_comes_out_to_the_byte() -> None:
    # From the reference libraries' test suites.
    assert sign(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    ) == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@given(random=st.binary(min_size=24, max_size=64), text=st.text(max_size=200))
def test_any_secret_and_any_body_verify(random: bytes, text: str) -> None:
    body = json.dumps(text).encode()
    secret = new_secret(random)
    assert Webhook(secret).verify(body, headers(secret, body=body)) == text


def test_another_secret_does_not_verify() -> None:
    with pytest.raises(WebhookVerificationError, match="No matching signature"):
        Webhook(OTHER).verify(BODY, headers())


def test_a_changed_body_does_not_verify() -> None:
    with pytest.raises(WebhookVerificationError, match="No matching signature"):
        Webhook(SECRET).verify(BODY.replace(b"PO-1", b"PO-2"), headers())


@pytest.mark.parametrize("header", ["webhook-id", "webhook-timestamp"])
def test_a_changed_header_does_not_verify(header: str) -> None:
    changed = headers()
    changed[header] = changed[header][:-1] + ("0" if changed[header][-1] != "0" else "1")
    with pytest.raises(WebhookVerificationError, match="No matching signature"):
        Webhook(SECRET).verify(BODY, changed)


@pytest.mark.parametrize(
    ("age", "words"), [(timedelta(minutes=6), "too old"), (timedelta(minutes=-6), "too new")]
)
def test_a_signature_from_another_time_does_not_verify(age: timedelta, words: str) -> None:
    with pytest.raises(WebhookVerificationError, match=words):
        Webhook(SECRET).verify(BODY, headers(at=datetime.now(UTC) - age))


def test_both_secrets_verify_while_one_replaces_the_other() -> None:
    signed = headers(OTHER, SECRET)
    assert signed["webhook-signature"].split(" ") == [
        headers(secret, at=int(signed["webhook-timestamp"]))["webhook-signature"]
        for secret in (OTHER, SECRET)
    ]
    for secret in (SECRET, OTHER):
        Webhook(secret).verify(BODY, signed)


def test_the_same_moment_in_another_zone_signs_the_same() -> None:
    moment = datetime(2026, 3, 1, 12, 0, 0, 999_999, tzinfo=UTC)
    elsewhere = moment.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert headers(at=moment) == headers(at=elsewhere) == headers(at=1_772_366_400)


@pytest.mark.parametrize("size", [0, 23, 65])
def test_a_secret_outside_the_specified_lengths_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="24 to 64 bytes"):
        new_secret(bytes(size))


@pytest.mark.parametrize(
    "secret", ["", "whsec_", SECRET.removeprefix("whsec_"), "whsec_!" + SECRET[7:], "whsec_c2hvcnQ="]
)
def test_a_malformed_secret_is_refused_without_being_quoted(secret: str) -> None:
    with pytest.raises(ValueError) as refusal:
        headers(secret)
    assert not secret or secret.removeprefix("whsec_") == "" or secret not in str(refusal.value)
    assert refusal.value.__cause__ is None


@pytest.mark.parametrize("message_id", ["", "msg.1", "msg 1", "msg_1\n", "msg\r\nx: y", "ü", "m" * 256])
def test_an_id_that_could_be_read_in_two_ways_is_refused(message_id: str) -> None:
    with pytest.raises(ValueError, match="message id"):
        sign([SECRET], message_id, 1, BODY)


def test_signing_with_no_secret_or_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one secret"):
        sign([], "msg_1", 1, BODY)
    with pytest.raises(ValueError, match="zone"):
        headers(at=datetime(2026, 3, 1))  # noqa: DTZ001 - the mistake under test
