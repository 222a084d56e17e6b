"""Finds a partner's earlier registrations of given devices, many at once, by indexes.

Every lookup has a LIMIT, so a serial number that thousands of rows share costs no more than any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from app.db.sql import fetch_all, fetch_all_as, listed
from app.domain.batch import OPEN_BATCH
from app.domain.product_key import is_usual
from app.domain.registration import OPEN, SUCCESS, RegistrationState
from app.domain.same_device import DeviceNames
from app.kernel.transactions import PartnerTx


@dataclass(frozen=True, slots=True)
class Twin:
    """An earlier registration of the same device."""

    n: int
    """The number of the given device."""
    customer_id: UUID
    state: RegistrationState
    customer_name: str
    reference: str


@dataclass(frozen=True, slots=True)
class CountedModel:
    """A model of the registered devices that match a pattern, with its count."""

    pattern: str
    manufacturer: str
    model: str
    n: int


_ON_ITS_WAY = listed(OPEN | {RegistrationState.UNKNOWN})
_HAS_DEVICE = listed(SUCCESS)
ROWS_PER_DEVICE = 20
ROWS_PER_PATTERN = 500

# `domain.same_device.is_same` in SQL. A row is under way while its batch is open, whatever its own state.
_TWINS = f"""
SELECT a.n, f.customer_id, f.state, c.name AS customer_name, o.reference
FROM unnest(CAST(:places AS integer[]), CAST(:serials AS text[]), CAST(:makers AS text[]),
            CAST(:models AS text[]), CAST(:keys AS text[]), CAST(:usual AS boolean[]))
     AS a(n, serial, maker, model, key, usual)
CROSS JOIN LATERAL (
    SELECT t.id, t.customer_id, t.order_id, t.state FROM (
        (SELECT r.id, r.customer_id, r.order_id, r.batch_id, r.state FROM registrations r
         WHERE r.partner_id = :partner AND r.serial_number = a.serial
         AND r.order_id IS DISTINCT FROM CAST(:but AS uuid)
         AND r.state IN ({_HAS_DEVICE}, {_ON_ITS_WAY})
         AND (a.maker IS NULL OR r.manufacturer IS NULL OR a.maker = r.manufacturer)
         AND (a.model IS NULL OR r.model IS NULL OR a.model = r.model)
         AND (a.key IS NULL OR r.product_key IS NULL OR a.key = r.product_key)
         LIMIT {ROWS_PER_DEVICE})
        UNION
        SELECT k.id, k.customer_id, k.order_id, k.batch_id, k.state FROM (
            SELECT r.id, r.customer_id, r.order_id, r.batch_id, r.state, r.serial_number FROM registrations r
            WHERE r.partner_id = :partner AND r.product_key = a.key
            AND r.order_id IS DISTINCT FROM CAST(:but AS uuid)
            AND r.state IN ({_HAS_DEVICE}, {_ON_ITS_WAY})
            LIMIT {ROWS_PER_DEVICE}
        ) AS k
        WHERE a.usual OR a.serial IS NULL OR k.serial_number IS NULL OR a.serial = k.serial_number
    ) AS t
    WHERE t.state IN ({_HAS_DEVICE}) OR EXISTS (
        SELECT FROM batches b WHERE b.id = t.batch_id AND b.state IN ({listed(OPEN_BATCH)}))
) AS f
JOIN customers c ON c.id = f.customer_id
JOIN orders o ON o.id = f.order_id
ORDER BY a.n, f.id DESC
"""

_MODELS = f"""
SELECT p.pattern, e.manufacturer, e.model, count(*) AS n
FROM unnest(CAST(:patterns AS text[]), CAST(:starts AS text[]), CAST(:lengths AS integer[]))
     AS p(pattern, start, length)
CROSS JOIN LATERAL (
    SELECT r.manufacturer, r.model, r.state, length(r.serial_number) AS length FROM registrations r
    WHERE r.partner_id = :partner AND r.serial_number ~>=~ p.start
    AND r.serial_number ~<~ (p.start || chr(1114111))
    LIMIT {ROWS_PER_PATTERN}
) AS e
WHERE e.length = p.length AND e.state IN ({_HAS_DEVICE})
AND e.manufacturer IS NOT NULL AND e.model IS NOT NULL
GROUP BY p.pattern, e.manufacturer, e.model
"""


def _known(column: str) -> str:
    return (
        f"SELECT a.value FROM unnest(CAST(:values AS text[])) AS a(value) CROSS JOIN LATERAL ("
        f"SELECT FROM registrations r WHERE r.partner_id = :partner AND r.{column} = a.value "
        "AND r.order_id IS DISTINCT FROM CAST(:but AS uuid) LIMIT 1) AS r"
    )


_KNOWN_SERIALS, _KNOWN_KEYS = _known("serial_number"), _known("product_key")


async def known(
    tx: PartnerTx,
    serial_numbers: Sequence[str | None],
    product_keys: Sequence[str | None],
    *,
    but: UUID | None,
) -> tuple[set[str], set[str]]:
    """The serial numbers and PKIDs that a registration has, in any state. Ignores the order `but`."""
    found: list[set[str]] = []
    for statement, values in ((_KNOWN_SERIALS, serial_numbers), (_KNOWN_KEYS, product_keys)):
        asked = [value for value in values if value is not None]
        rows = await fetch_all(tx, statement, partner=tx.partner_id, values=asked, but=but) if asked else []
        found.append({row["value"] for row in rows})
    serials, keys = found
    return serials, keys


async def twins(tx: PartnerTx, devices: Sequence[tuple[int, DeviceNames]], *, but: UUID | None) -> list[Twin]:
    """Registrations of the given devices, each of which has a number."""
    keys = [names.product_key for _, names in devices]
    return await fetch_all_as(
        tx,
        Twin,
        _TWINS,
        partner=tx.partner_id,
        but=but,
        places=[place for place, _ in devices],
        serials=[names.serial_number for _, names in devices],
        makers=[names.manufacturer for _, names in devices],
        models=[names.model for _, names in devices],
        keys=keys,
        usual=[key is not None and is_usual(key) for key in keys],
    )


async def models_of(tx: PartnerTx, patterns: Sequence[tuple[str, str, int]]) -> list[CountedModel]:
    """The models of the registered devices that match each pattern (name, start of the serial, length)."""
    return await fetch_all_as(
        tx,
        CountedModel,
        _MODELS,
        partner=tx.partner_id,
        patterns=[name for name, _, _ in patterns],
        starts=[start for _, start, _ in patterns],
        lengths=[length for _, _, length in patterns],
    )
