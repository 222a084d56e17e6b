"""Models of imports and vendor profiles in calls and answers."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from app.api.contract.models import GroupTagText, Input, OnInvalid, Output, PageOf, Patch, Text100, Text255
from app.api.contract.texts import KeepsNoSecret, Safe, named
from app.api.contract.times import Timestamp
from app.domain.catalogue import Severity
from app.domain.identity import IdentityKind
from app.domain.imports import MAX_BASE_REFERENCE, ImportState, Verdict
from app.intake.text import encodings

Reference = Annotated[str, named(MAX_BASE_REFERENCE), Safe, KeepsNoSecret]

YesOrNo = Annotated[
    Literal["true", "false"], BeforeValidator(lambda text: text.lower() if isinstance(text, str) else text)
]
"""Parameters of a URL and fields of a form are texts."""


def _known_encoding(name: str) -> str:
    encodings.named(name)
    return name


EncodingName = Annotated[str, StringConstraints(max_length=40), AfterValidator(_known_encoding)]


class ImportIn(Input):
    """Options of a file: parameters of the URL, or fields of the form."""

    customer_id: UUID | None = Field(
        None, description="The customer of all devices. Leave it out if the file has a customer column."
    )
    reference: Reference | None = Field(
        None,
        description="The order's reference; with several customers each order gets `/` and a suffix. "
        "Default: from the file's name and content, so that a file is not ordered twice by mistake.",
    )
    purchase_order: Text255 | None = Field(None, description="Default: the file's, if it has exactly one.")
    group_tag: GroupTagText | None = Field(None, description="For rows that name none.")
    profile: Text100 | None = Field(None, description="Name of the vendor profile to read it with.")
    encoding: EncodingName | None = Field(
        None, description="Of a text that does not state it, e.g. `cp1251` or `shift-jis`. Default: detected."
    )
    file_name: Text255 | None = Field(None, description="Default: the form's own.")
    sheet: Text255 | None = Field(
        None, description="The sheet of a workbook to read. Default: the first visible one with devices."
    )
    include_hidden: YesOrNo | None = Field(
        None,
        description="Of a workbook: `true` reads hidden rows and columns, too; `false` leaves them out "
        "knowingly. Default: they are left out, and a warning counts them.",
    )


class CommitIn(Input):
    on_invalid: OnInvalid = "accept_valid"
    reference: Reference | None = Field(None, description="Instead of the import's own.")


class ImportColumn(Output):
    name: str = Field(description="As the file has it.")
    field: str | None = Field(description="The field it is read as; null: not used.")


class ImportNotice(Output):
    code: str
    severity: Severity
    column: str | None
    detail: str
    remedy: str


class ImportDialect(Output):
    """How the file is written."""

    format: str
    container: str | None
    kind: str
    encoding: str
    delimiter: str
    header_row: int | None = Field(description="Line of the column names; null: the file has none.")
    sheet: str | None = Field(description="Of a workbook: the sheet that is read.")
    columns: list[ImportColumn]
    columns_unused: list[str]
    notices: list[ImportNotice]


class ImportCounts(Output):
    """Rows by verdict."""

    total: int
    valid: int
    warning: int = Field(description="Valid, with a warning to look at.")
    invalid: int

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> "ImportCounts":
        found = {verdict.value: counts.get(verdict.value, 0) for verdict in Verdict}
        return cls(total=sum(found.values()), **found)


class ImportCustomer(Output):
    customer_id: UUID | None = Field(description="Null: rows whose customer is not known; never ordered.")
    counts: ImportCounts
    batches: int = Field(description="Calls to Microsoft, or files to upload at a portal by hand.")
    purchase_order: str | None


class ImportTag(Output):
    customer_id: UUID
    group_tag: str
    devices: int
    batches: int


class ImportProblemCount(Output):
    code: str
    severity: Severity
    title: str
    remedy: str
    rows: int
    first_rows: list[int] = Field(description="Row numbers: devices counted from 1.")
    first_lines: list[int] = Field(
        description="Where these rows begin in the file; of a workbook, the sheet's own row numbers. "
        "Empty for imports that were read before lines were noted here."
    )


class ImportPreview(Output):
    """Options for committing. The rows that are ordered are those of the preview."""

    batches: int
    changed: int = Field(description="Rows that have become invalid since they were read.")
    customers: list[ImportCustomer] = Field(description="The first 1,000.")
    customers_total: int
    group_tags: list[ImportTag] = Field(description="The first 1,000.")
    group_tags_total: int
    problems: list[ImportProblemCount]


class ImportFailure(Output):
    code: str
    detail: str | None
    remedy: str


class ImportOrder(Output):
    customer_id: UUID
    order_id: UUID
    reference: str


class ImportProgress(Output):
    rows_read: int
    bytes_read: int
    size_bytes: int = Field(description="While the file is arriving: the bytes so far.")


class ImportOut(Output):
    id: UUID
    state: ImportState
    file_name: str | None
    sha256: str | None
    customer_id: UUID | None
    reference: str | None
    purchase_order: str | None
    group_tag: str | None
    profile: str | None
    progress: ImportProgress
    counts: ImportCounts
    dialect: ImportDialect | None = Field(description="Null until the beginning of the file has been read.")
    preview: ImportPreview | None = Field(description="Null until the whole file has been read.")
    failure: ImportFailure | None
    orders: list[ImportOrder]
    created_at: Timestamp
    updated_at: Timestamp
    expires_at: Timestamp = Field(description="When its rows are deleted. Orders stay.")


class Imports(PageOf):
    items: list[ImportOut]


class ImportProblem(Output):
    code: str
    severity: Severity
    column: str | None = Field(None, description="The column's name in the file.")
    field: str | None
    value: str | None = Field(None, description="The cell's value, shortened; never a hash or a key.")
    detail: str
    remedy: str


class ImportRow(Output):
    row: int = Field(description="Devices counted from 1, without the header.")
    line: int = Field(description="Line of the file on which the row begins; of a workbook, the sheet's row.")
    verdict: Verdict
    changed: bool = Field(description="The verdict was given after the preview.")
    customer_id: UUID | None
    group_tag: str | None
    line_ref: str | None
    identity: IdentityKind | None
    serial_number: str | None
    manufacturer: str | None
    model: str | None
    product_key: str | None
    problems: list[ImportProblem]


class ImportRows(PageOf):
    items: list[ImportRow]


class ImportRowProblem(ImportProblem):
    row: int = Field(description="Devices counted from 1, without the header.")
    line: int = Field(description="Line of the file on which the row begins; of a workbook, the sheet's row.")


class ImportProblems(PageOf):
    items: list[ImportRowProblem] = Field(description="All problems of each row; a page has whole rows.")


class ProfileIn(Input):
    name: Text100
    definition: dict[str, Any] = Field(
        description="`columns`: names (or `#3`) to fields or null; `constants`: values for fields the file "
        "lacks; `group_tag`: `{column, values, otherwise}`. Each text has at most 256 characters, and the "
        "definition at most 256 kB as JSON."
    )


class ProfilePatch(Patch):
    name: Text100 | None = None
    definition: dict[str, Any] | None = None


class ProfileOut(Output):
    id: UUID
    name: str
    definition: dict[str, Any]
    created_at: Timestamp
    updated_at: Timestamp


class ProfileSummary(Output):
    """A profile in a list."""

    id: UUID
    name: str
    definition_bytes: int = Field(description="Size of its definition; the profile itself carries it.")
    created_at: Timestamp
    updated_at: Timestamp = Field(description="Changes with every change of the profile.")


class VendorProfiles(PageOf):
    items: list[ProfileSummary]
