"""The demonstration's webhook receiver: what it keeps, and what it refuses."""

import socket
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from app.local.receiver import Receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"type": "order.accepted", "data": {}}'


def request(body: bytes = BODY, *, id: str = "msg_1", forged: bool = False) -> bytes:
    now = datetime.now(UTC)
    signature = "v1,AAAA" if forged else Webhook(SECRET).sign(id, now, body.decode())
    lines = [
        "POST /webhooks HTTP/1.1",
        "Host: receiver",
        f"webhook-id: {id}",
        f"webhook-timestamp: {int(now.timestamp())}",
        f"webhook-signature: {signature}",
        f"content-length: {len(body)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answer(receiver: Receiver, sent: bytes) -> bytes:
    """Sends the bytes, then nothing more. Returns what comes back until the connection ends."""
    address = ("127.0.0.1", int(receiver.url.rpartition(":")[2].partition("/")[0]))
    with socket.create_connection(address, timeout=10) as sender:
        sender.sendall(sent)
        sender.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sender.recv(4096), b""))


def test_a_verified_event_is_kept_once_and_a_forged_one_refused() -> None:
    with Receiver() as receiver:
        receiver.secret = SECRET
        assert b" 204 " in answer(receiver, request())
        assert b" 204 " in answer(receiver, request())
        assert b" 400 " in answer(receiver, request(id="msg_2", forged=True))
        assert (list(receiver.kept()), receiver.repeated, receiver.refused) == (["msg_1"], 1, 1)


@pytest.mark.parametrize("missing", [1, len(BODY), len(BODY) + 10])
def test_a_request_that_its_sender_did_not_finish_is_no_forged_event(missing: int) -> None:
    """A worker that is killed while it sends has sent a part: of the body, or of the headers."""
    with Receiver() as receiver:
        receiver.secret = SECRET
        assert answer(receiver, request()[:-missing]) == b""
        assert (receiver.arrived, receiver.refused, receiver.kept()) == (0, 0, {})
