"""Maps names of columns to fields: a table of names, and how a file's names are matched to it.

The table grows: a supplier's wording is one more string here and no code. Names are compared without case,
accents, blanks and punctuation, so `Device serial number`, `DEVICE_SERIAL_NUMBER` and `deviceSerialNumber`
are one name. Within a field, earlier names rank higher: if two columns of a file mean one field, the earlier
name wins.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from app.domain.masking import holds_secret
from app.intake import groups
from app.intake.table import Kind, Notice

ALIASES: Final[dict[str, tuple[str, ...]]] = {
    "serial_number": (
        "Device Serial Number", "BIOS Serial Number", "SMBIOS Serial Number", "System Serial Number",
        "SerialNumber0", "Serial Number", "Device Serial", "Hardware Serial Number",
        "Machine Serial Number", "Computer Serial Number", "BIOS Serial", "IdentifyingNumber",
        "IdentifyingNumber0", "Serial", "Serial No", "Serial Nr", "Serial Num", "Serial #",
        "Serial Number/Service Tag", "Service Tag", "Dell Service Tag", "S/N", "SN", "Device SN",
        "Serials", "Serial Numbers", "Seriennummer", "Serien-Nr.", "Serien Nr", "Seriennr.",
        "Geräteseriennummer", "Numéro de série", "Numéro série", "N° de série", "N° série", "Nº série",
        "No de série", "Número de serie", "N.º de serie", "N° serie", "Número de série",
        "Numero di serie", "Numero seriale", "N. di serie", "Matricola", "Serienummer", "Numer seryjny",
        "Sarjanumero", "Sériové číslo", "シリアル番号", "序列号", "序號", "Unit Serial Number",
        "Product Serial Number", "Chassis Serial Number", "Asset Serial Number",
    ),
    "product_key": (
        "Windows Product ID", "PKID", "Product Key ID", "Windows Product Key ID", "Windows PKID",
        "Microsoft PKID", "MS PKID", "OA3 PKID", "OA3 Product Key ID", "OEM PKID",
        "Digital Product Key ID", "DPK ID", "DPKID", "PK ID", "Product Key Identifier",
        "Windows Product Key", "Product Key", "Windows-Produkt-ID", "Windows Produkt ID",
        "ID de produit Windows", "ID de producto de Windows", "ID prodotto Windows",
    ),
    "hardware_hash": (
        "Hardware Hash", "Device Hardware Hash", "4K Hardware Hash", "OA3 Hardware Hash", "OA3 Hash",
        "4K Hash", "4K HH", "Hardware Identifier", "Hardware ID", "HWID", "HW ID", "HW Hash",
        "Autopilot Hash", "Autopilot Hardware Hash", "Windows Autopilot Hash", "Device Hardware Data",
        "DeviceHardwareData0", "Device Hash", "Hash", "Hash Value", "Hardwarehash", "Hardware-Hashwert",
        "Hachage matériel", "Code de hachage du matériel", "Hash de hardware", "Hash hardware",
    ),
    "manufacturer": (
        "System Manufacturer", "Manufacturer name", "OEM Manufacturer Name", "Manufacturer",
        "Manufacturer0", "Device Manufacturer", "Computer Manufacturer", "OEM Name", "OEM Manufacturer",
        "OEM", "Make", "Maker", "Vendor", "Vendor0", "Vendor Name", "Brand", "Mfr", "Mfg", "Hersteller",
        "Herstellername", "Fabricant", "Marque", "Fabricante", "Marca", "Produttore", "Fabrikant",
        "Producent", "Tillverkare", "Valmistaja", "Výrobce", "メーカー", "制造商",
    ),
    "model": (
        "System Product Name", "System Model", "Device model", "Model", "Model0", "Computer Model",
        "Machine Model", "Hardware Model", "Machine Type Model", "MTM", "Device Model Name", "Model name",
        "Product Name", "Model Number", "Model No", "Modell", "Gerätemodell", "Modellname",
        "Modellbezeichnung", "Modèle", "Modèle de l'appareil", "Modelo", "Modello", "Malli", "モデル", "型号",
    ),
    "group_tag": (
        "Group Tag", "Autopilot Group Tag", "Windows Autopilot Group Tag", "Intune Group Tag",
        "Device Group Tag", "Order Identifier", "Tag", "Tags", "Batch ID", "Batch Name", "Gruppentag",
        "Gruppen-Tag", "Gruppe", "Balise de groupe", "Etiqueta de grupo", "Tag gruppo", "Groepstag",
        "グループ タグ",
    ),
    "assigned_user": (
        "Assigned User", "Assigned User Principal Name", "User Principal Name", "UPN",
        "Assigned User UPN", "Assigned User Email", "Primary User", "Primary User UPN", "User Email",
        "User Name", "User", "Zugewiesener Benutzer", "Benutzer", "Utilisateur affecté", "Utilisateur",
        "Usuario asignado", "Usuario", "Utente assegnato", "Utente",
    ),
    "line_ref": (
        "line_ref", "Line Reference", "Order Line", "Order Line Number", "Order Line ID",
        "Order Line Ref", "PO Line", "PO Line Number", "Line ID", "Line Number", "Line No", "Line Nr",
        "Line #", "Line Item", "Line", "Row Reference", "Row Ref", "Item Number", "Item No", "Item",
        "Position", "Pos", "Bestellposition", "Auftragsposition", "Lfd. Nr.", "Laufende Nummer", "Zeile",
        "Ligne de commande", "Ligne", "Línea de pedido", "Línea", "Riga ordine", "Riga",
    ),
    "customer": (
        "Customer Tenant ID", "Entra Tenant ID", "Azure Tenant ID", "Azure AD Tenant ID",
        "Microsoft Tenant ID", "M365 Tenant ID", "Tenant ID", "Tenant GUID", "Tenant", "Customer ID",
        "Tenant Domain", "Customer Domain", "Primary Domain", "onmicrosoft domain", "Customer",
        "Customer Name", "End Customer", "End Customer Name", "Company", "Company Name", "Kunde",
        "Kundenname", "Client", "Cliente",
    ),
    "purchase_order": (
        "Purchase Order", "Purchase Order Number", "Purchase Order Identifier", "PO Number", "PO No",
        "PO #", "PO", "Order Number", "Order No", "Order ID", "Order", "Sales Order",
        "Sales Order Number", "Bestellnummer", "Bestell-Nr.", "Auftragsnummer", "Auftrags-Nr.",
        "Numéro de commande", "Número de pedido", "Numero ordine",
    ),
}  # fmt: skip

DOUBTFUL: Final[dict[str, str]] = {
    "Product ID": "product_key", "Produkt-ID": "product_key", "Windows Key ID": "product_key",
}  # fmt: skip
"""Names that mean something else just as often (a vendor's article number), so the content decides."""

FIELDS: Final = tuple(ALIASES)
WRITTEN: Final[dict[str, str]] = {
    **{field: names[0] for field, names in ALIASES.items()},
    "manufacturer": "Manufacturer name", "model": "Device model",
}  # fmt: skip
"""Microsoft's own names, for files that Registrar writes."""

BESIDE: Final[dict[str, tuple[str, str]]] = {
    "Name": ("IdentifyingNumber", "model"), "Name0": ("IdentifyingNumber0", "model"),
}  # fmt: skip
"""Names that mean a field only beside another: in WMI's Win32_ComputerSystemProduct, Name is the model."""

IDENTITY: Final = frozenset({"serial_number", "product_key", "hardware_hash"})
SENT: Final = IDENTITY | {"manufacturer", "model", "group_tag"}
OWN: Final = frozenset({"line_ref", "customer", "purchase_order"})
"""Fields for the order that are never sent to Microsoft."""

COLLECTOR: Final = ("serial_number", "product_key", "hardware_hash", "group_tag", "assigned_user")
PARTNER_CENTER: Final = ("serial_number", "product_key", "hardware_hash", "manufacturer", "model")
NUMBERED: Final = 10_000
"""The rank of a name that ends in a number."""
MAX_NAME: Final = 100
"""Characters. A longer cell is a value, never a column's name."""


def normalise(name: str) -> str:
    """A name's letters and digits, without case and accents."""
    if name.isascii():
        return "".join(filter(str.isalnum, name)).lower()
    letters = unicodedata.normalize("NFKD", name.casefold())
    return "".join(filter(str.isalnum, letters))


def _ranked() -> dict[str, tuple[str, int]]:
    table: dict[str, tuple[str, int]] = {}
    for field, names in ALIASES.items():
        for rank, name in enumerate(names):
            known = table.setdefault(normalise(name), (field, rank))
            if known[0] != field:
                raise RuntimeError(f"column name {name!r} is in the table for {known[0]} and for {field}")
    return table


_TABLE: Final = _ranked()
_DOUBTFUL: Final = {normalise(name): field for name, field in DOUBTFUL.items()}


def field_of(name: str) -> str | None:
    """The field that a column's name means."""
    if len(name) > MAX_NAME:
        return None
    return _TABLE.get(normalise(name), (None, 0))[0]


def doubtful_field_of(name: str) -> str | None:
    return _DOUBTFUL.get(normalise(name)) if len(name) <= MAX_NAME else None


class Twin(NamedTuple):
    """`others` are in the order of their rank."""

    field: str
    at: int
    others: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a file, by position. `names` are unique and never empty."""

    names: tuple[str, ...]
    fields: tuple[str | None, ...]
    notices: tuple[Notice, ...] = ()
    twins: tuple["Twin", ...] = ()
    """Columns with the same meaning as another one, which is used instead."""
    groups: tuple[tuple[int, ...], ...] = ()
    """The columns of each device, if a line has several devices side by side."""

    @property
    def pairs(self) -> tuple[tuple[str, str | None], ...]:
        """Each name with its field, as a dialect and a row show them."""
        return tuple(zip(self.names, self.fields, strict=True))

    @property
    def known(self) -> int:
        return sum(field is not None for field in self.fields)

    @property
    def has_identity(self) -> bool:
        return any(field in IDENTITY for field in self.fields)


def resolve(
    header: Sequence[str],
    sure: Mapping[int, str] | None = None,
    settled: Mapping[int, str | None] | None = None,
) -> Columns:
    """Matches a header's cells to fields. A notice names every column without a field.

    `settled` has positions that the user has decided, None for columns to leave unused; `sure` has those
    whose field the content proves. Settled outranks sure, and sure outranks names.
    """
    settled = settled or {}
    decided_fields = set(settled.values())
    sure = {
        at: field for at, field in (sure or {}).items() if at not in settled and field not in decided_fields
    }
    header = _without_trailing_blanks(header, max(settled, default=-1) + 1)
    if not settled and not sure and (side_by_side := groups.find(header, field_of, normalise)):
        return _grouped(header, side_by_side)
    best: dict[str, tuple[int, int]] = {}
    for at, chosen_field in settled.items():
        if chosen_field is not None:
            best.setdefault(chosen_field, (-2, at))
    for at, proved in sure.items():
        best.setdefault(proved, (-1, at))
    ranks = _ranks(header)
    for at, (field, rank) in ranks.items():
        if at not in sure and at not in settled and (field not in best or rank < best[field][0]):
            best[field] = (rank, at)
    chosen = {at: field for field, (_, at) in best.items()}
    names = _unique(header)
    notices = [
        notice
        for at, name in enumerate(names)
        if at not in settled and (notice := _notice(name, header[at], chosen.get(at), at in sure))
    ]
    notices += [
        _repeated(names[at], field)
        for at, field in settled.items()
        if field is not None and chosen.get(at) != field
    ]
    fields = tuple(chosen.get(at) for at in range(len(header)))
    return Columns(names, fields, tuple(notices), _twins(header, best, ranks, settled))


def _ranks(header: Sequence[str]) -> dict[int, tuple[str, int]]:
    """The field and the rank of every column that has a known name."""
    keys = [normalise(name) if len(name) <= MAX_NAME else "" for name in header]
    ranks = {at: hit for at, key in enumerate(keys) if (hit := _TABLE.get(key))}
    for at, name in enumerate(header):
        # A second serial number column beside the first one is not a different kind.
        plain = groups.without_number(name) if at not in ranks and len(name) <= MAX_NAME else None
        if plain is not None and field_of(plain) in IDENTITY:
            ranks[at] = (field_of(plain) or "", NUMBERED)
    for name, (beside, field) in BESIDE.items():
        if normalise(beside) in keys and field not in {known for known, _ in ranks.values()}:
            ranks |= {at: (field, 0) for at, key in enumerate(keys) if key == normalise(name)}
    return ranks


def _twins(
    header: Sequence[str],
    best: Mapping[str, tuple[int, int]],
    ranks: Mapping[int, tuple[str, int]],
    settled: Mapping[int, str | None],
) -> tuple[Twin, ...]:
    """Columns with the same meaning. Settled columns have none, because the user has chosen."""
    found = []
    for field, (_, at) in best.items():
        others = sorted(
            (other_rank, other)
            for other, (other_field, other_rank) in ranks.items()
            if other_field == field and other != at and other not in settled
        )
        if field in SENT and at not in settled and others:
            found.append(Twin(field, at, tuple(other for _, other in others)))
    return tuple(found)


def _grouped(header: Sequence[str], found: groups.Groups) -> Columns:
    names = _unique(header)
    fields = tuple(found.fields.get(at) for at in range(len(header)))
    words = f"Each line has {len(found.places)} devices side by side; each of them is a row of its own."
    notices = [Notice("devices_side_by_side", words)]
    notices += [
        notice for at, name in enumerate(names) if (notice := _notice(name, header[at], fields[at], False))
    ]
    return Columns(names, fields, tuple(notices), groups=found.places)


def kind_of(columns: Columns) -> Kind:
    """The template that the known columns follow; other columns may come after them."""
    fields = columns.fields
    if fields[:5] == PARTNER_CENTER:
        return Kind.PARTNER_CENTER
    if fields[:3] == COLLECTOR[:3]:
        return Kind.COLLECTOR
    return Kind.GENERIC


def _notice(name: str, written: str, field: str | None, proved: bool) -> Notice | None:
    if proved:
        words = f"The name of column '{name}' is not known; by its content it is read as {field}."
        return Notice("column_by_content", words, name)
    if field in OWN:
        words = f"Column '{name}' is not one of Microsoft's columns: it is read as {field} and stays here."
        return Notice("column_not_sent", words, name)
    if field is not None or not written.strip():
        return None
    twin = field_of(written) or field_of(groups.without_number(written) or "")
    if twin is not None:
        return _repeated(name, twin)
    words = f"Column '{name}' is not known; it is kept with the row, but not used."
    return Notice("column_unknown", words, name)


def _repeated(name: str, field: str) -> Notice:
    words = f"Column '{name}' means {field} like another column; it is kept, but the other one is used."
    return Notice("column_repeated", words, name)


def _without_trailing_blanks(header: Sequence[str], least: int) -> Sequence[str]:
    end = len(header)
    while end > least and not header[end - 1].strip():
        end -= 1
    return header[:end]


def _unique(header: Sequence[str]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for at, cell in enumerate(header, start=1):
        # If a row of values was taken for the header, a cell may be anything, even a secret.
        plain = "" if holds_secret(cell) else " ".join(cell.split())[:MAX_NAME]
        plain = plain or f"column {at}"
        name = plain if plain not in names else f"{plain} (column {at})"
        while name in names:
            name += "'"
        names[name] = None
    return tuple(names)
