"""Partner Center's own webhooks: the registrations, the signing certificate, and the delivery attempts.

A notification is signed with RSA and SHA-256 over the raw body, by a certificate of a test authority that is
created on first use. It is given up after ten attempts.
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import httpx
import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

ATTEMPTS = 10
CERTIFICATE_PATH = "/cert/pcnotifications-dispatch.microsoft.com.cer"


@dataclass(slots=True)
class Registration:
    """A partner's one webhook registration."""

    subscriber: str
    url: str
    events: list[str]
    in_ms_signature: bool
    base_url: str


@dataclass(slots=True)
class Notification:
    """One notification being delivered. `status` is pending, delivered or given_up."""

    id: str
    partner: str
    event: str
    url: str
    status: str = "pending"
    attempts: list[dict[str, Any]] = field(default_factory=list)

    def view(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Microsoft Corporation"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


class Signer:
    """A test authority and its certificate for signing. Created on first use."""

    @cached_property
    def _chain(self) -> tuple[rsa.RSAPrivateKey, x509.Certificate, x509.Certificate]:
        root_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        root_name = _name("Simulated Root (not Microsoft's)")
        root = self._certify(root_name, root_name, root_key, root_key, authority=True)
        leaf_name = _name("pcnotifications-dispatch.microsoft.com")
        return key, self._certify(leaf_name, root_name, key, root_key, authority=False), root

    @staticmethod
    def _certify(
        subject: x509.Name,
        issuer: x509.Name,
        key: rsa.RSAPrivateKey,
        issuer_key: rsa.RSAPrivateKey,
        authority: bool,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=365))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
            )
            .sign(issuer_key, hashes.SHA256())
        )

    @property
    def leaf(self) -> x509.Certificate:
        return self._chain[1]

    @property
    def root(self) -> x509.Certificate:
        return self._chain[2]

    def pem(self, certificate: x509.Certificate) -> str:
        return certificate.public_bytes(serialization.Encoding.PEM).decode()

    def der(self, certificate: x509.Certificate) -> bytes:
        return certificate.public_bytes(serialization.Encoding.DER)

    def sign(self, body: bytes) -> str:
        return base64.b64encode(self._chain[0].sign(body, padding.PKCS1v15(), hashes.SHA256())).decode()


class Notifications:
    """Registrations by partner and the notifications sent so far."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None) -> None:
        self.signer = Signer()
        self._transport = transport
        self._tasks: set[asyncio.Task[None]] = set()
        self.forget()

    def forget(self) -> None:
        """Removes every registration and stops every delivery."""
        self.stop()
        self.registrations: dict[str, Registration] = {}
        self.sent: dict[str, Notification] = {}
        self.validations: dict[str, list[float]] = {}

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    def send(
        self, notification: Notification, payload: dict[str, Any], to: Registration, pause: float
    ) -> None:
        """Begin delivering; `pause` seconds between attempts. Must be called on the event loop."""
        self.sent[notification.id] = notification
        task = asyncio.get_running_loop().create_task(self._deliver(notification, payload, to, pause))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(
        self, notification: Notification, payload: dict[str, Any], to: Registration, pause: float
    ) -> None:
        body = orjson.dumps(payload)
        headers = {
            "content-type": "application/json; charset=utf-8",
            "x-ms-certificate-url": f"{to.base_url}{CERTIFICATE_PATH}",
            "x-ms-signature-algorithm": "rsa-sha256",
            "x-ms-signature"
            if to.in_ms_signature
            else "authorization": f"Signature {self.signer.sign(body)}",
        }
        async with httpx.AsyncClient(transport=self._transport, trust_env=False, timeout=10) as client:
            for number in range(ATTEMPTS):
                if number:
                    await asyncio.sleep(pause)
                attempt: dict[str, Any] = {"at": datetime.now(UTC).isoformat()}
                notification.attempts.append(attempt)
                try:
                    response = await client.post(to.url, content=body, headers=headers)
                except (httpx.HTTPError, httpx.InvalidURL) as error:
                    attempt["error"] = type(error).__name__
                    continue
                attempt["status"] = response.status_code
                if response.is_success:
                    notification.status = "delivered"
                    return
        notification.status = "given_up"
