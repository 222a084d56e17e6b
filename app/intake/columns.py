"""Which field a column's name means: a table of names, and how a file's names are matched to it.

It stands alone because it grows: a supplier's wording is one more string here and no code. Names
are compared without case, accents, blanks and punctuation, so `Device serial number`,
`DEVICE_SERIAL_NUMBER` and `deviceSerialNumber` are one name. Within a field the order is the
rank: when two columns of a file mean one field, the name further to the front wins.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from app.domain.masking import holds_secret
from app.intake.table import Kind, Notice

ALIASES: Final[dict[str, tuple[str, ...]]] = {
    "serial_number": (
        "Device Serial Number", "Serial Number", "Device Serial", "Hardware Serial Number",
        "BIOS Serial Number", "SMBIOS Serial Number", "System Serial Number", "Machine Serial Number",
        "Computer Serial Number", "Unit Serial Number", "Product Serial Number", "Chassis Serial Number",
        "BIOS Serial", "Serial", "Serial No", "Serial Nr", "Serial Num", "Serial #",
        "Serial Number/Service Tag", "Service Tag", "Dell Service Tag", "S/N", "SN", "Device SN", "Serials",
        "Serial Numbers", "Asset Serial Number", "Seriennummer", "Serien-Nr.", "Serien Nr",
        "Geräteseriennummer", "Numéro de série", "N° de série", "No de série", "Número de serie",
        "N.º de serie", "Número de série", "Numero di serie", "Numero seriale", "Serienummer",
        "Numer seryjny", "Sarjanumero", "Sériové číslo", "シリアル番号", "序列号", "序號",
    ),
    "product_key": (
        "Windows Product ID", "PKID", "Product Key ID", "Windows Product Key ID", "Windows PKID",
        "Microsoft PKID", "MS PKID", "OA3 PKID", "OA3 Product Key ID", "OEM PKID", "Digital Product Key ID",
        "DPK ID", "DPKID", "PK ID", "Product Key Identifier", "Windows Product Key", "Product Key",
        "Windows-Produkt-ID", "Windows Produkt ID", "ID de produit Windows", "ID de producto de Windows",
        "ID prodotto Windows",
    ),
    "hardware_hash": (
        "Hardware Hash", "Device Hardware Hash", "4K Hardware Hash", "OA3 Hardware Hash", "OA3 Hash",
        "4K Hash", "4K HH", "Hardware Identifier", "Hardware ID", "HWID", "HW ID", "HW Hash",
        "Autopilot Hash", "Autopilot Hardware Hash", "Windows Autopilot Hash", "Device Hardware Data",
        "Device Hash", "Hash", "Hash Value", "Hardwarehash", "Hardware-Hashwert", "Hachage matériel",
        "Code de hachage du matériel", "Hash de hardware", "Hash hardware",
    ),
    "manufacturer": (
        "Manufacturer name", "OEM Manufacturer Name", "Manufacturer", "Device Manufacturer",
        "System Manufacturer", "Computer Manufacturer", "OEM Name", "OEM Manufacturer", "OEM", "Make",
        "Maker", "Vendor", "Vendor Name", "Brand", "Mfr", "Mfg", "Hersteller", "Herstellername", "Fabricant",
        "Fabricante", "Produttore", "Fabrikant", "Producent", "Tillverkare", "Valmistaja", "Výrobce",
        "メーカー", "制造商",
    ),
    "model": (
        "Device model", "Model name", "Model", "System Model", "Computer Model", "Machine Model",
        "Hardware Model", "Device Model Name", "System Product Name", "Product Name", "Model Number",
        "Model No", "Machine Type Model", "MTM", "Modell", "Gerätemodell", "Modellname", "Modèle",
        "Modèle de l'appareil", "Modelo", "Modello", "Malli", "モデル", "型号",
    ),
    "group_tag": (
        "Group Tag", "Autopilot Group Tag", "Windows Autopilot Group Tag", "Intune Group Tag",
        "Device Group Tag", "Order Identifier", "Tag", "Tags", "Batch ID", "Batch Name", "Gruppentag",
        "Gruppen-Tag", "Balise de groupe", "Etiqueta de grupo", "Tag gruppo", "Groepstag",
    ),
    "assigned_user": (
        "Assigned User", "Assigned User Principal Name", "User Principal Name", "UPN", "Assigned User UPN",
        "Assigned User Email", "Primary User", "Primary User UPN", "User Email", "User Name", "User",
        "Zugewiesener Benutzer", "Benutzer", "Utilisateur affecté", "Utilisateur", "Usuario asignado",
        "Usuario", "Utente assegnato", "Utente",
    ),
    "line_ref": (
        "line_ref", "Line Reference", "Order Line", "Order Line Number", "Order Line ID", "Order Line Ref",
        "PO Line", "PO Line Number", "Line ID", "Line Number", "Line No", "Line Nr", "Line #", "Line Item",
        "Line", "Row Reference", "Row Ref", "Item Number", "Item No", "Item", "Position", "Pos",
        "Bestellposition", "Auftragsposition", "Zeile", "Ligne de commande", "Ligne", "Línea de pedido",
        "Línea", "Riga ordine", "Riga",
    ),
    "customer": (
        "Customer Tenant ID", "Entra Tenant ID", "Azure Tenant ID", "Azure AD Tenant ID",
        "Microsoft Tenant ID", "M365 Tenant ID", "Tenant ID", "Tenant GUID", "Tenant", "Customer ID",
        "Tenant Domain", "Customer Domain", "Primary Domain", "onmicrosoft domain", "Customer",
        "Customer Name", "End Customer", "End Customer Name", "Company", "Company Name", "Kunde",
        "Kundenname", "Client", "Cliente",
    ),
    "purchase_order": (
        "Purchase Order", "Purchase Order Number", "Purchase Order Identifier", "PO Number", "PO No", "PO #",
        "PO", "Order Number", "Order No", "Order ID", "Order", "Sales Order", "Sales Order Number",
        "Bestellnummer", "Auftragsnummer", "Numéro de commande", "Número de pedido", "Numero ordine",
    ),
}  # fmt: skip

DOUBTFUL: Final[dict[str, str]] = {"Product ID": "product_key", "Windows Key ID": "product_key"}
"""Names that mean something else just as often (a vendor's article number): the content decides."""

FIELDS: Final = tuple(ALIASES)
IDENTITY: Final = frozenset({"serial_number", "product_key", "hardware_hash"})
OWN: Final = frozenset({"line_ref", "customer", "purchase_order"})
"""Read for the order, never part of what Microsoft receives."""

COLLECTOR: Final = ("serial_number", "product_key", "hardware_hash", "group_tag", "assigned_user")
PARTNER_CENTER: Final = ("serial_number", "product_key", "hardware_hash", "manufacturer", "model")
MAX_NAME: Final = 100
"""Characters. A longer cell is a value, never a column's name."""


def normalise(name: str) -> str:
    """The letters and digits of a name, without case and accents."""
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
    """The field a column of this name is, by its name alone."""
    if len(name) > MAX_NAME:
        return None
    return _TABLE.get(normalise(name), (None, 0))[0]


def doubtful_field_of(name: str) -> str | None:
    return _DOUBTFUL.get(normalise(name)) if len(name) <= MAX_NAME else None


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a file, by position. `names` are unique and never empty."""

    names: tuple[str, ...]
    fields: tuple[str | None, ...]
    notices: tuple[Notice, ...] = ()

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
    """Match a header's cells to fields; every column that gives no field is told in a notice.

    `settled` has positions that a person has decided, None for columns knowingly unused; `sure` those
    whose field the content has proved. Settled outranks proved, and proved outranks names.
    """
    settled = settled or {}
    decided_fields = set(settled.values())
    sure = {
        at: field for at, field in (sure or {}).items() if at not in settled and field not in decided_fields
    }
    header = _without_trailing_blanks(header, max(settled, default=-1) + 1)
    best: dict[str, tuple[int, int]] = {}
    for at, chosen_field in settled.items():
        if chosen_field is not None:
            best.setdefault(chosen_field, (-2, at))
    for at, proved in sure.items():
        best.setdefault(proved, (-1, at))
    for at, name in enumerate(header):
        decided = at in sure or at in settled
        if not decided and len(name) <= MAX_NAME and (hit := _TABLE.get(normalise(name))):
            field, rank = hit
            if field not in best or rank < best[field][0]:
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
    return Columns(names, tuple(chosen.get(at) for at in range(len(header))), tuple(notices))


def kind_of(columns: Columns) -> Kind:
    """The template the known columns follow; columns of the writer's own may come after them."""
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
        return Notice("column_own", words, name)
    if field is not None or not written.strip():
        return None
    twin = field_of(written)
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
        # A cell of a row that was taken for the names may be anything, a secret too.
        plain = "" if holds_secret(cell) else " ".join(cell.split())[:MAX_NAME]
        plain = plain or f"column {at}"
        name = plain if plain not in names else f"{plain} (column {at})"
        while name in names:
            name += "'"
        names[name] = None
    return tuple(names)
