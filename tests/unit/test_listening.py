"""An address on which `registrar api` cannot listen is told in one line, with the exit code of an error."""

import errno
import socket
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.cli.listening import refusal
from app.cli.outcome import ExitCode
from tests.unit.cli_wire import Wire

API = (
    b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/problem+json\r\nConnection: close\r\n\r\n"
    b'{"code": "unauthenticated", "correlation_id": "1", "status": 401}'
)
OTHER = b"HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n\r\n" + b'{"code": "unauthenticated"}'


@contextmanager
def occupant(answer: bytes) -> Iterator[int]:
    """A program that gives everybody this answer."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            client, _ = listening.accept()
            with client:
                client.recv(65536)
                client.sendall(answer)

        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        yield listening.getsockname()[1]
        serving.join(45)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    monkeypatch.setenv("REGISTRAR_DATABASE_URL", "postgresql://registrar@127.0.0.1:1/registrar")
    monkeypatch.setenv("REGISTRAR_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("REGISTRAR_SECRET_KEYS", b64encode(bytes(32)).decode())
    return Wire()


def refused(wire: Wire) -> str:
    result = wire.run("api")
    assert result.exit_code == ExitCode.ERROR
    assert wire.executed == []
    return result.stderr


@pytest.mark.parametrize(
    ("answer", "whose"),
    [(API, "another Registrar"), (OTHER, "another program"), (b"220 mail\r\n", "another program")],
)
def test_a_taken_port_says_by_whom(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, answer: bytes, whose: str
) -> None:
    with occupant(answer) as port:
        monkeypatch.setenv("REGISTRAR_API_PORT", str(port))
        said = refused(wire)
    assert f"Port {port} of 127.0.0.1 is taken by {whose}." in said
    assert "REGISTRAR_API_PORT" in said


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("192.0.2.1", "this machine has no address 192.0.2.1"),
        ("2001:db8::1", "this machine has no address 2001:db8::1"),
    ],
)
def test_a_host_that_is_not_this_machine_is_told(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, host: str, words: str
) -> None:
    monkeypatch.setenv("REGISTRAR_API_HOST", host)
    said = " ".join(refused(wire).split())
    assert f"REGISTRAR_API_HOST: {words}." in said
    assert "0.0.0.0 for all" in said


def test_a_name_that_nobody_knows_is_told() -> None:
    stop = refusal(socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "registrar.invalid", 8000)
    assert stop.words == "REGISTRAR_API_HOST: no address is known for 'registrar.invalid'."
    assert "0.0.0.0 for all" in stop.advice[0]


def test_a_port_of_the_administrator_is_told() -> None:
    stop = refusal(PermissionError(errno.EACCES, "Permission denied"), "127.0.0.1", 443)
    assert stop.words == "Port 443 is for the administrator: this user may not listen on it."
    assert "REGISTRAR_API_PORT to 1024 or more" in stop.advice[0]
    assert stop.code is ExitCode.ERROR


def test_any_other_reason_is_told_in_the_systems_words() -> None:
    stop = refusal(OSError(errno.ENOBUFS, "No buffer space available"), "127.0.0.1", 8000)
    assert "port 8000 of 127.0.0.1: No buffer space available." in stop.words
