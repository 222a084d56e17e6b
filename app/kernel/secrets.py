"""Envelope encryption of secrets in the database: credentials, webhook secrets, stored answers.

Each value has its own data key, wrapped by a master key of the settings, so that master keys can be rotated
without encrypting the values again. A value is authenticated together with its place (table, column, partner
and row): copied into another row or column it does not open.

Values sealed by earlier releases are bound to their partner and purpose only. They open until `registrar
secrets reseal` has resealed them. Until then an older installation also seals new values in the old way,
because processes of the previous release must open them.
"""

import base64
import binascii
import contextlib
import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
_NONCE_BYTES = 12
_KEY_ID_BYTES = 4
_WRAPPED_BYTES = KEY_BYTES + 16  # AES-GCM adds a tag of 16 bytes
_OF_PARTNER, _OF_ROW = b"\x01", b"\x02"
"""The first byte: the kind of place that the value is bound to."""


class SecretError(ValueError):
    """A master key is unusable, or a sealed value does not open with any of them."""


NO_KEY = (
    "there is no secret key here: run `registrar migrate`, which makes one in the data directory, or set "
    "REGISTRAR_SECRET_KEYS"
)


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a sealed value. It opens there and nowhere else."""

    table: str
    column: str
    partner_id: UUID
    row: str
    """The row's key among the partner's rows."""
    former: str
    """The context of values that were sealed before they were bound to their row."""

    @property
    def context(self) -> str:
        return f"{self.table}.{self.column}:{self.partner_id}:{self.row}"


class Secrets:
    """Seals and opens values. The first key seals; every key opens."""

    binds_to_rows: bool = True
    """False while the previous release may have to open what is sealed here."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise SecretError(NO_KEY)
        for key in keys:
            if len(key) != KEY_BYTES:
                raise SecretError(f"a secret key has {len(key)} bytes; it needs {KEY_BYTES}")
        self._first = _key_id(keys[0])
        self._keys = {_key_id(key): AESGCM(key) for key in keys}

    @classmethod
    def from_base64(cls, keys: Sequence[str]) -> Self:
        try:
            return cls([base64.b64decode(key.encode(), validate=True) for key in keys])
        except binascii.Error:
            # Without the cause: a traceback would show the key.
            raise SecretError("REGISTRAR_SECRET_KEYS must be base64") from None

    @classmethod
    def from_data_dir(cls, data_dir: Path) -> Self:
        """The key generated for this data directory, made on first use with mode 0600."""
        path = key_file(data_dir)
        data_dir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _make_key(path)
        return cls.from_base64([path.read_text().strip()])

    @classmethod
    def absent(cls) -> "Secrets":
        """For commands that need no secrets: sealing and opening raise SecretError."""
        return _NoSecrets()

    def seal(self, value: bytes | str, place: Place) -> bytes:
        plain = value.encode() if isinstance(value, str) else value
        if not self.binds_to_rows:
            return self._seal(plain, _OF_PARTNER, place.former)
        return self._seal(plain, _OF_ROW, place.context)

    def _seal(self, plain: bytes, version: bytes, context: str) -> bytes:
        data_key = os.urandom(KEY_BYTES)
        wrap_nonce, nonce = os.urandom(_NONCE_BYTES), os.urandom(_NONCE_BYTES)
        wrapped = self._keys[self._first].encrypt(wrap_nonce, data_key, context.encode())
        sealed = AESGCM(data_key).encrypt(nonce, plain, context.encode())
        return b"".join((version, self._first, wrap_nonce, wrapped, nonce, sealed))

    def is_current(self, sealed: bytes) -> bool:
        """Whether it is bound to a row and sealed with the first key. Does not check that it opens."""
        return sealed[:1] == _OF_ROW and sealed[1 : 1 + _KEY_ID_BYTES] == self._first

    def open(self, sealed: bytes, place: Place) -> bytes:
        """Raises SecretError if the key is gone, the place differs or the value is damaged."""
        rest = memoryview(sealed)
        version = bytes(rest[:1])
        if len(rest) < 1 + _KEY_ID_BYTES + 2 * _NONCE_BYTES + _WRAPPED_BYTES or version not in (
            _OF_PARTNER,
            _OF_ROW,
        ):
            raise SecretError("it is not a sealed value")
        context = (place.context if version == _OF_ROW else place.former).encode()
        rest = rest[1:]
        key_id, rest = bytes(rest[:_KEY_ID_BYTES]), rest[_KEY_ID_BYTES:]
        wrap_nonce, rest = bytes(rest[:_NONCE_BYTES]), rest[_NONCE_BYTES:]
        wrapped, rest = bytes(rest[:_WRAPPED_BYTES]), rest[_WRAPPED_BYTES:]
        nonce, body = bytes(rest[:_NONCE_BYTES]), bytes(rest[_NONCE_BYTES:])
        master = self._keys.get(key_id)
        if master is None:
            raise SecretError("it was sealed with a secret key that REGISTRAR_SECRET_KEYS no longer has")
        try:
            data_key = master.decrypt(wrap_nonce, wrapped, context)
            return AESGCM(data_key).decrypt(nonce, body, context)
        except InvalidTag as error:
            raise SecretError("it is damaged, or was sealed for another row") from error

    def open_text(self, sealed: bytes, place: Place) -> str:
        return self.open(sealed, place).decode()


class _NoSecrets(Secrets):
    def __init__(self) -> None:
        pass

    def seal(self, value: bytes | str, place: Place) -> bytes:
        raise SecretError(NO_KEY)

    def is_current(self, sealed: bytes) -> bool:
        raise SecretError(NO_KEY)

    def open(self, sealed: bytes, place: Place) -> bytes:
        raise SecretError(NO_KEY)


def key_file(data_dir: Path) -> Path:
    return data_dir / "secret.key"


def _make_key(path: Path) -> None:
    """Puts a new key there in one step: an API and a worker that start together must use the same key, and
    neither may read half of it."""
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(base64.b64encode(os.urandom(KEY_BYTES)).decode())
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was quicker: use its key
            os.link(draft, path)
    finally:
        os.unlink(draft)


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"registrar key id" + key).digest()[:_KEY_ID_BYTES]
