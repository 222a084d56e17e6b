"""Findings from the partner's earlier orders about devices that are about to be ordered.

Orders by JSON, imports, and the second check before an import is committed share this code, so that they
cannot disagree. What the devices alone can tell is decided in `domain.identity`. What only Microsoft knows is
unknown here: this reads our own records.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from app.db import history
from app.db.history import CountedModel, Twin
from app.domain.catalogue import Finding
from app.domain.masking import quoted
from app.domain.registration import SUCCESS
from app.domain.same_device import DeviceNames
from app.kernel.transactions import PartnerTx

PATTERN_START = 4
"""Serial numbers have the same pattern if length and first characters are the same."""
ENOUGH_EARLIER = 5
"""The fewest earlier devices of a pattern from which a model is expected."""
AGREEMENT = 0.9
"""The share of them that must agree on manufacturer and model."""


@dataclass(slots=True)
class Patterns:
    """Manufacturer and model by serial number pattern, cached for one file; None if they vary."""

    usual: dict[str, tuple[str, str] | None] = field(default_factory=dict)


async def compare(
    tx: PartnerTx,
    customer_id: UUID,
    devices: Sequence[DeviceNames | None],
    *,
    patterns: Patterns | None = None,
    but_order: UUID | None = None,
) -> list[list[Finding]]:
    """Returns the findings for each device, in order; none for None, an invalid device.

    For up to a few thousand devices of one customer at a time. `but_order`: the order that the devices are
    being stored in. A device with an error among its findings is not sent (`CheckedDevice.noted`).
    """
    found: list[list[Finding]] = [[] for _ in devices]
    asked = [
        (place, names)
        for place, names in enumerate(devices)
        if names is not None and (names.serial_number or names.product_key)
    ]
    if not asked:
        return found
    serials, keys = await history.known(
        tx, [n.serial_number for _, n in asked], [n.product_key for _, n in asked], but=but_order
    )
    # Hardly any device has been here before, so only those few cost a second query.
    met = [(place, n) for place, n in asked if n.serial_number in serials or n.product_key in keys]
    by_place: defaultdict[int, list[Twin]] = defaultdict(list)
    if met:
        for record in await history.twins(tx, met, but=but_order):
            by_place[record.n].append(record)
    for place, records in by_place.items():
        found[place] += _on_twins(customer_id, records)
    named = [
        (place, pattern, (maker, model))
        for place, (serial, maker, model, _) in asked
        if maker is not None and model is not None and (pattern := _pattern(serial))
    ]
    usual = await _usual(tx, {pattern for _, pattern, _ in named}, patterns or Patterns())
    for place, pattern, model_given in named:
        expected = usual.get(pattern)
        if expected is not None and expected != model_given:
            found[place].append(_unlike(expected))
    return found


def _on_twins(customer_id: UUID, records: Sequence[Twin]) -> list[Finding]:
    """The finding that matters most: registered for another customer, for this one, or still open."""
    registered = [record for record in records if record.state in SUCCESS]
    for record in registered:
        if record.customer_id != customer_id:
            detail = f"Order {quoted(record.reference)} registered it for {quoted(record.customer_name)}."
            return [Finding("registered_for_other_customer", "", detail)]
    if registered:
        detail = f"Order {quoted(registered[0].reference)} registered it for this customer."
        return [Finding("already_registered_here", "", detail)]
    for record in records:
        order, customer = quoted(record.reference), quoted(record.customer_name)
        detail = f"Order {order} for {customer} has it and is still open."
        return [Finding("duplicate_open_elsewhere", "", detail)]
    return []


def _unlike(expected: tuple[str, str]) -> Finding:
    maker, model = expected
    detail = f"Earlier devices with such serial numbers were {quoted(maker)}, {quoted(model)}."
    return Finding("model_unlike_earlier", "model", detail)


def _pattern(serial: str | None) -> str | None:
    if serial is None or len(serial) <= PATTERN_START:
        return None
    return f"{serial[:PATTERN_START]}/{len(serial)}"


async def _usual(tx: PartnerTx, wanted: set[str], patterns: Patterns) -> Mapping[str, tuple[str, str] | None]:
    known = patterns.usual
    asked = [
        (pattern, pattern[: pattern.rindex("/")], int(pattern[pattern.rindex("/") + 1 :]))
        for pattern in sorted(wanted - known.keys())
    ]
    if asked:
        counted: defaultdict[str, list[CountedModel]] = defaultdict(list)
        for record in await history.models_of(tx, asked):
            counted[record.pattern].append(record)
        for pattern, _, _ in asked:
            known[pattern] = _agreed(counted.get(pattern, []))
    return known


def _agreed(records: Sequence[CountedModel]) -> tuple[str, str] | None:
    total = sum(record.n for record in records)
    if total < ENOUGH_EARLIER:
        return None
    most = max(records, key=lambda record: record.n)
    if most.n < AGREEMENT * total:
        return None
    return most.manufacturer, most.model
