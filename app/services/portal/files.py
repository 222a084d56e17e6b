"""The files of portal orders: their content, what cannot be in them, and the list of an order's files.

One file for each batch, because a portal's list has a name, which is the group tag. Nothing here changes
anything: a file is made on request from the current rows, and is the same each time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from anyio import to_thread

from app.db import batches, connections, customers, orders, registrations
from app.db.paging import Page, PageRequest, cut
from app.db.registrations import SendableRow
from app.domain.actor import Principal
from app.domain.batch import Batch, BatchState, BatchSummary
from app.domain.connection import Connection, ConnectionMode
from app.domain.errors import Conflict, NotFound, Unprocessable
from app.domain.identity import IdentityKind
from app.domain.order import Order
from app.domain.portal_file import FileFormat
from app.domain.scope import Scope
from app.kernel.telemetry import logger
from app.kernel.transactions import PartnerTx
from app.runtime import Runtime
from app.services.access.identities import Caller

log = logger("portal_files")

_TO_UPLOAD = frozenset({BatchState.QUEUED, BatchState.SUBMITTED})
NO_CONSENT = "The customer's consent is not recorded: record it with `consent:record`, and the order goes on."


@dataclass(frozen=True, slots=True)
class PortalFile:
    batch: BatchSummary
    name: str
    ready: bool
    """Whether it can be downloaded and uploaded."""
    steps: Sequence[str]


async def list_of_order(
    runtime: Runtime, principal: Principal, order_id: UUID, page: PageRequest
) -> Page[PortalFile]:
    """The order's files, oldest first. Raises NotFound, and Unprocessable if Registrar sends the order."""
    async with runtime.reading(principal) as tx:
        order = await orders.get(tx, order_id)
        if order is None:
            raise NotFound("not_found", f"There is no order {order_id}.")
        format = format_of(runtime, order)
        customer = await customers.get(tx, order.customer_id)
        found = await batches.of_order(tx, order_id)
    assert customer is not None  # a foreign key holds it
    names = _names(format, order.reference, found)
    rest = [row for row in found if page.after is None or str(row.id) > str(page.after)]
    files = cut(rest[: page.size + 1], page, lambda row: row.id)
    return Page([_file(format, row, names[row.id], customer.name) for row in files.items], files.next_token)


def format_of(runtime: Runtime, record: Order | Connection) -> FileFormat:
    """The file format of an order or a connection. Raises Unprocessable if it is not in portal mode."""
    format = runtime.platforms[record.platform].file
    if record.mode is ConnectionMode.API or format is None:
        raise Unprocessable("not_a_portal_order")
    return format


def _file(format: FileFormat, batch: BatchSummary, name: str, customer: str) -> PortalFile:
    state = batch.state
    steps: Sequence[str] = ()
    if state is BatchState.HELD:
        steps = [NO_CONSENT]
    elif state in _TO_UPLOAD:
        steps = format.steps_for(
            customer=customer, group_tag=batch.group_tag, file=name, rows=batch.device_count
        )
    return PortalFile(batch, name, state in _TO_UPLOAD, steps)


def _names(format: FileFormat, reference: str, found: Sequence[BatchSummary]) -> dict[UUID, str]:
    """Each batch's file name. Equal names get numbers, also if they differ only in case."""
    taken: dict[str, int] = {}
    names = {}
    for row in found:
        key = format.file_name(row.group_tag, reference).casefold()
        taken[key] = taken.get(key, 0) + 1
        names[row.id] = format.file_name(row.group_tag, reference, taken[key])
    return names


async def file_of(runtime: Runtime, caller: Caller, batch_id: UUID) -> tuple[str, bytes]:
    """Returns the file's name and exact bytes. Raises NotFound, Unprocessable or Conflict.

    A portal needs the hashes, so a file with hashes is made only for callers who may read them; others get
    Forbidden.
    """
    async with runtime.reading(caller) as tx:
        batch = await batches.get(tx, batch_id)
        if batch is None:
            raise NotFound("not_found", f"There is no batch {batch_id}.")
        connection = await connections.get(tx, batch.connection_id)
        assert connection is not None  # a foreign key holds it
        format = format_of(runtime, connection)
        await _refuse_unready(tx, batch)
        found = await registrations.of_batch(tx, batch_id, with_hashes=True)
        order = await orders.get(tx, batch.order_id)
        assert order is not None  # a foreign key holds it
        files = await batches.of_order(tx, batch.order_id)
        name = _names(format, order.reference, files)[batch_id]
    rows = [row for row, _ in found]
    if any(row.hash_data is not None for row in rows):
        caller.require(Scope.HASHES_READ)
    if len(rows) != batch.device_count or any(_has_lost_its_hash(row) for row in rows):
        raise Conflict(
            "invalid_state",
            "The file cannot be made again: some of its devices have outcomes, so their hashes are deleted.",
        )
    with_serial = runtime.settings.send_serial_with_hash
    content = await to_thread.run_sync(
        lambda: _content(format, rows, batch.group_tag, with_serial=with_serial)
    )
    log.info("portal_file_made", batch_id=str(batch_id), devices=len(rows), bytes=len(content))
    return name, content


async def _refuse_unready(tx: PartnerTx, batch: Batch) -> None:
    state = batch.state
    if state is BatchState.CANCELLED:
        raise Conflict("invalid_state", "The batch was cancelled: its file must not be uploaded.")
    if state is BatchState.HELD or (
        state is BatchState.QUEUED and await customers.holds_for_share(tx, batch.customer_id)
    ):
        raise Conflict("invalid_state", NO_CONSENT)


def _has_lost_its_hash(row: SendableRow) -> bool:
    return row.identity == IdentityKind.HARDWARE_HASH and row.hash_data is None


def _content(format: FileFormat, rows: Sequence[SendableRow], group_tag: str, *, with_serial: bool) -> bytes:
    cells = [format.cells(row.outgoing(with_serial=with_serial), group_tag) for row in rows]
    for row, values in zip(rows, cells, strict=True):
        # Checked when the order was accepted, but a setting may have changed since.
        if finding := format.objection(values):
            raise Conflict(finding.code, f"Row {row.row_number}, {finding.field}: {finding.detail}")
    return format.write(cells)
