"""Imports for API callers: upload, list, commit and discard.

A file is stored in the database piece by piece while it arrives, so that it need not fit into a process's
memory or disk, and any worker can read it. Workers do everything that takes time.
"""

import hashlib
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import PurePath
from typing import Any
from uuid import UUID

from anyio import to_thread

from app.db import import_rows, imports, vendor_profiles
from app.db.ids import new_row_id
from app.db.paging import Page, PageRequest
from app.domain.actor import Principal
from app.domain.errors import Conflict, NotFound, TooLarge, Unprocessable
from app.domain.imports import MOVING, READY, Import, ImportedOrder, ImportState, Verdict, order_reference
from app.domain.quota import Quota
from app.domain.staged import StagedRow
from app.domain.vendor_profile import VendorProfile
from app.kernel.telemetry import logger
from app.kernel.transactions import PartnerTx
from app.kernel.wakeups import WakeKind
from app.runtime import Runtime
from app.services.access import quotas
from app.services.connections.terms import read_orderable, refuse_long_tag

log = logger("imports")

PIECE = 2 * 1024 * 1024
"""Bytes of a file in one piece, stored in one transaction."""
UPLOAD_PATIENCE = timedelta(hours=1)
"""An upload without a new piece for this long counts as abandoned."""


@dataclass(frozen=True, slots=True)
class Instructions:
    """The options and fields that are sent with a file."""

    customer_id: UUID | None = None
    reference: str | None = None
    purchase_order: str | None = None
    group_tag: str | None = None
    profile: str | None = None
    encoding: str | None = None
    file_name: str | None = None
    sheet: str | None = None
    """The sheet of a workbook to read."""
    include_hidden: bool | None = None

    @property
    def options(self) -> dict[str, str | bool]:
        """The given options for reading the file."""
        given = {"sheet": self.sheet, "include_hidden": self.include_hidden}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class ImportView:
    record: Import
    orders: Sequence[ImportedOrder]

    @property
    def state(self) -> ImportState:
        return self.record.state

    @property
    def is_moving(self) -> bool:
        return self.state in MOVING


@dataclass(slots=True)
class Upload:
    """A file that is arriving. Takes bytes as they come; holds at most one piece of them."""

    runtime: Runtime
    principal: Principal
    id: UUID
    is_repeated: bool = False
    size: int = 0
    _pieces: int = 0
    _held: bytearray = field(default_factory=bytearray)
    _digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    @classmethod
    async def begin(cls, runtime: Runtime, principal: Principal, *, repeated: bool = False) -> "Upload":
        """Raises RateLimited, or Unprocessable, `quota_exceeded`.

        `repeated`: its Idempotency-Key is known, so the file is only compared with the first one and then
        deleted. It needs no room for another import.
        """
        now, id = runtime.now(), new_row_id()
        async with runtime.transaction(principal) as tx:
            await quotas.require(tx, Quota.UPLOADS)
            # Checked early, so that no file is sent for nothing; checked again when the file is complete.
            for quota in () if repeated else (Quota.WAITING_IMPORTS, Quota.STAGED_BYTES, Quota.STAGED_ROWS):
                await quotas.require(tx, quota)
            await imports.add(
                tx,
                {
                    "id": id,
                    "state": ImportState.UPLOADING.value,
                    "reference": str(id),
                    "counts": {},
                    "due_at": now + UPLOAD_PATIENCE,
                    "created_by": tx.actor.key_id,
                    "created_at": now,
                    "updated_at": now,
                    "expires_at": now + timedelta(days=runtime.settings.import_retention_days),
                },
            )
        return cls(runtime, principal, id, repeated)

    async def feed(self, data: bytes | memoryview) -> None:
        """Raises TooLarge, `quota_exceeded`, or Conflict if the import has been discarded."""
        self._held += data
        while len(self._held) >= PIECE:
            piece = bytes(self._held[:PIECE])
            del self._held[:PIECE]
            await self._store(piece)

    async def end(self) -> bytes:
        """Stores the rest. Returns the digest of the whole file."""
        if self._held:
            await self._store(bytes(self._held))
            self._held.clear()
        return self._digest.digest()

    async def _store(self, piece: bytes) -> None:
        self.size += len(piece)
        limit = self.runtime.settings.max_import_bytes
        if self.size > limit:
            raise TooLarge("import_too_large", f"A file has at most {limit:,} bytes.")
        async with self.runtime.turns.pieces.turn(self.principal.partner_id):
            await self._pack_and_keep(piece)
        self._pieces += 1

    async def _pack_and_keep(self, piece: bytes) -> None:
        packed = await to_thread.run_sync(self._pack, piece)
        now = self.runtime.now()
        async with self.runtime.transaction(self.principal) as tx:
            alive = await imports.add_piece(
                tx, self.id, self._pieces, packed, size=self.size, now=now, due_at=now + UPLOAD_PATIENCE
            )
            # Without a lock: concurrent uploads may exceed the quota by a piece each.
            if not self.is_repeated:
                await quotas.require_room(tx, Quota.STAGED_BYTES)
        if not alive:
            raise Conflict("invalid_state", "The import was discarded while its file was arriving.")

    def _pack(self, piece: bytes) -> bytes:
        """Compresses at level 1: a device file shrinks to a tenth at 300 MB/s; writing it raw costs more."""
        self._digest.update(piece)
        return zlib.compress(piece, 1)

    async def throw_away(self) -> None:
        async with self.runtime.transaction(self.principal) as tx:
            await imports.delete_uploading(tx, self.id)


@asynccontextmanager
async def complete(
    upload: Upload, instructions: Instructions, digest: bytes
) -> AsyncIterator[tuple[PartnerTx, ImportView]]:
    """Hands the complete file to the workers when the block ends.

    Raises NotFound, Unprocessable.
    """
    runtime = upload.runtime
    now = runtime.now()
    async with runtime.transaction(upload.principal) as tx:
        await quotas.require(tx, Quota.WAITING_IMPORTS)
        profile = await _check_instructions(runtime, tx, instructions)
        values = {
            "file_name": instructions.file_name,
            "size_bytes": upload.size,
            "digest": digest,
            "customer_id": instructions.customer_id,
            "reference": instructions.reference or _default_reference(instructions.file_name, digest),
            "purchase_order": instructions.purchase_order,
            "group_tag": instructions.group_tag,
            "profile_name": instructions.profile,
            "profile": _definition(profile, instructions.encoding),
            "due_at": now,
            "updated_at": now,
            "expires_at": now + timedelta(days=runtime.settings.import_retention_days),
        }
        if not await imports.move(tx, upload.id, ImportState.UPLOADED, values):
            raise Conflict("invalid_state", "The import was discarded while its file was arriving.")
        if upload.is_repeated:  # but its key has expired since, so it is a new import
            await quotas.require_room(tx, Quota.STAGED_BYTES)
        if instructions.options:
            await imports.add_options(tx, upload.id, instructions.options)
        tx.wake(WakeKind.IMPORTS)
        yield tx, await _view(tx, upload.id)
    log.info("import_uploaded", import_id=str(upload.id), size=upload.size)


def _definition(profile: VendorProfile | None, encoding: str | None) -> dict[str, Any] | None:
    """The profile for reading the file. An encoding given with the upload outranks the profile's."""
    if encoding is None:
        return None if profile is None else profile.definition
    return {**(profile.definition if profile is not None else {}), "encoding": encoding}


async def check_instructions(runtime: Runtime, principal: Principal, instructions: Instructions) -> None:
    """Refuses wrong instructions before the file arrives."""
    async with runtime.transaction(principal) as tx:
        await _check_instructions(runtime, tx, instructions)


async def _check_instructions(
    runtime: Runtime, tx: PartnerTx, instructions: Instructions
) -> VendorProfile | None:
    if instructions.customer_id is not None:
        await read_orderable(runtime, tx, instructions.customer_id)
    refuse_long_tag(runtime.settings, instructions.group_tag)
    if instructions.profile is None:
        return None
    profile = await vendor_profiles.get_by_name(tx, instructions.profile)
    if profile is None:
        raise NotFound("unknown_profile", f"There is no vendor profile {instructions.profile!r}.")
    return profile


def _default_reference(file_name: str | None, digest: bytes) -> str:
    """Derives the reference from the content, so that nobody orders the same file twice by mistake."""
    stem = PurePath(file_name).stem.strip()[:100] if file_name else ""
    return f"{stem or 'import'} {digest.hex()[:12]}"


# --- reading --------------------------------------------------------------------------------------


async def _view(tx: PartnerTx, import_id: UUID) -> ImportView:
    record = await imports.get(tx, import_id)
    if record is None:
        raise _unknown(import_id)
    return ImportView(record, await imports.orders_of(tx, [import_id]))


def _unknown(import_id: UUID) -> NotFound:
    return NotFound("not_found", f"There is no import {import_id}.")


async def get(runtime: Runtime, principal: Principal, import_id: UUID) -> ImportView:
    async with runtime.reading(principal) as tx:
        return await _view(tx, import_id)


async def list_page(
    runtime: Runtime, principal: Principal, page: PageRequest, *, state: ImportState | None
) -> Page[ImportView]:
    async with runtime.reading(principal) as tx:
        found = await imports.list_page(tx, page, state=None if state is None else state.value)
        made = await imports.orders_of(tx, [row.id for row in found.items])
    return Page(
        [ImportView(row, [o for o in made if o.import_id == row.id]) for row in found.items],
        found.next_token,
    )


async def rows(
    runtime: Runtime,
    principal: Principal,
    import_id: UUID,
    page: PageRequest,
    *,
    verdict: Verdict | None = None,
    code: str | None = None,
    noted_only: bool = False,
) -> Page[StagedRow]:
    """Returns staged rows; during the reading, those that have been read so far."""
    async with runtime.reading(principal) as tx:
        if await imports.get(tx, import_id) is None:
            raise _unknown(import_id)
        return await import_rows.list_page(
            tx,
            import_id,
            page,
            verdict=None if verdict is None else verdict.value,
            code=code,
            noted_only=noted_only,
        )


# --- changing -------------------------------------------------------------------------------------


_COMMITTED_OTHERWISE = (
    "It has been committed otherwise: with `on_invalid` {on_invalid} and the reference '{reference}'."
)


@asynccontextmanager
async def commit(
    runtime: Runtime,
    principal: Principal,
    import_id: UUID,
    *,
    reject_invalid: bool,
    reference: str | None = None,
) -> AsyncIterator[tuple[PartnerTx, ImportView]]:
    """Tells a worker to make the orders, once the block has ended.

    A repetition with the same options changes nothing. Raises Conflict, Unprocessable."""
    now = runtime.now()
    async with runtime.transaction(principal) as tx:
        record = await imports.lock(tx, import_id)
        if record is None:
            raise _unknown(import_id)
        state = record.state
        base = reference or record.reference
        on_invalid = "reject" if reject_invalid else "accept_valid"
        if state in READY:
            await _may_commit(tx, record, base, reject_invalid=reject_invalid)
            await quotas.require(tx, Quota.WAITING_IMPORTS)
            values = {
                "on_invalid": on_invalid,
                "reference": base,
                "failure_code": None,
                "failure_said": None,
                "due_at": now,
                "updated_at": now,
            }
            await imports.move(tx, import_id, ImportState.COMMITTING, values)
            tx.wake(WakeKind.IMPORTS)
        elif state not in (ImportState.COMMITTING, ImportState.COMMITTED):
            raise Conflict("invalid_state", _why_not(state))
        elif (on_invalid, base) != (record.on_invalid, record.reference):
            raise Conflict(
                "invalid_state",
                _COMMITTED_OTHERWISE.format(on_invalid=record.on_invalid, reference=record.reference),
            )
        yield tx, await _view(tx, import_id)


async def _may_commit(tx: PartnerTx, record: Import, base: str, *, reject_invalid: bool) -> None:
    summary = record.summary
    assert summary is not None  # it is ready
    fit = summary["valid"] + summary["warning"]
    if not fit:
        raise Unprocessable(
            "import_has_no_valid_row", f"No row of {summary['rows']:,} is valid: there is nothing to order."
        )
    if reject_invalid and summary["invalid"]:
        raise Unprocessable(
            "import_rejected", f"{summary['invalid']:,} of {summary['rows']:,} rows are invalid."
        )
    # The worker asks for no quota: what is accepted here is ordered completely.
    await quotas.require(tx, Quota.DEVICES, adding=fit)
    ids = [customer["customer_id"] for customer in summary["customers"] if customer["customer_id"]]
    done = {str(o.customer_id) for o in await imports.orders_of(tx, [record.id])}
    wanted = [order_reference(base, id, alone=len(ids) == 1) for id in ids if id not in done]
    taken = await imports.references_taken(tx, wanted)
    if taken:
        first = taken[0]
        raise Conflict(
            "reference_taken",
            f"Order {first.id} has the reference {first.reference!r} already.",
            links={"order_id": str(first.id)},
        )


def _why_not(state: ImportState) -> str:
    match state:
        case ImportState.UPLOADING | ImportState.UPLOADED | ImportState.READING:
            return "The import is still being read: wait until it is ready."
        case ImportState.REFUSED:
            return "The file could not be read: `failure` says why."
        case ImportState.DISCARDED:
            return "The import was discarded."
        case ImportState.EXPIRED:
            return "The import has expired: upload the file again."
        case _:
            return "The import has become orders already."


async def discard(runtime: Runtime, principal: Principal, import_id: UUID) -> ImportView:
    """Stops the import and has its rows deleted. Raises Conflict if it is committed or has orders."""
    now = runtime.now()
    async with runtime.transaction(principal) as tx:
        view = await _view(tx, import_id)
        if view.state is ImportState.DISCARDED:
            return view
        if view.state in (ImportState.COMMITTING, ImportState.COMMITTED) or view.orders:
            raise Conflict("invalid_state", "The import has become orders: cancel those instead.")
        values = {"due_at": now, "updated_at": now}
        if not await imports.move(tx, import_id, ImportState.DISCARDED, values):
            view = await _view(tx, import_id)
            raise Conflict("invalid_state", _why_not(view.state))
        tx.wake(WakeKind.IMPORTS)
        return await _view(tx, import_id)
