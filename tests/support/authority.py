"""A certificate authority for tests: makes certificates for servers and clients on this machine."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(frozen=True)
class Authority:
    place: Path
    name: str
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls, place: Path, name: str) -> "Authority":
        made = cls(place, name, ec.generate_private_key(ec.SECP256R1()))
        made.certificate.write_bytes(made._signed(name, made.key.public_key(), None, ca=True))
        return made

    @property
    def certificate(self) -> Path:
        return self.place / f"{self.name}.pem"

    def issue(self, name: str, *addresses: str) -> tuple[Path, Path]:
        """The files of a certificate and its key. `addresses` are the server's names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = [x509.IPAddress(ip_address(address)) for address in addresses]
        certificate, key_file = self.place / f"{name}.crt", self.place / f"{name}.key"
        certificate.write_bytes(self._signed(name, key.public_key(), alternatives, ca=False))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        key_file.chmod(0o600)
        return certificate, key_file

    def _signed(
        self,
        name: str,
        public: ec.EllipticCurvePublicKey,
        alternatives: list[x509.IPAddress] | None,
        *,
        ca: bool,
    ) -> bytes:
        now = datetime.now(UTC)
        issuer, subject = (
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, who)]) for who in (self.name, name)
        )
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
        )
        if ca:
            usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
            made = made.add_extension(usage, critical=True)
        if alternatives:
            made = made.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
