"""Former names of codes, and the catalogue entries of stored codes.

A code is renamed if its name is unclear without context. For one release, former names are accepted and
stored ones are shown under the present name: drop the table below in 0.3.
"""

from typing import Final

from app.domain.catalogue import CATALOGUE, Advice, Category, Code, Severity

PRESENT_NAMES: Final = {
    "binary": "file_is_not_text",
    "cabinet": "file_is_cabinet",
    "column_own": "column_not_sent",
    "compressed": "file_is_archive",
    "database": "file_is_database",
    "excel_workbook": "file_is_unsupported_workbook",
    "gzip": "file_is_nested_gzip",
    "html_table": "file_is_html_table",
    "identifier_order": "corporate_identifier_layout",
    "json": "file_is_json",
    "lines_above": "lines_above_table",
    "names_in_front": "names_beside_values",
    "numbers_document": "file_is_numbers_document",
    "opendocument_sheet": "file_is_opendocument",
    "pdf": "file_is_pdf",
    "picture": "file_is_picture",
    "program": "file_is_program",
    "rich_text": "file_is_rich_text",
    "web_page": "file_is_web_page",
    "xml": "file_is_xml",
    "xml_spreadsheet": "file_is_xml_spreadsheet",
}
"""The names of 0.1 and their replacements in 0.2."""


def present_name(code: str) -> str:
    """The present name of a code. Any other text is returned unchanged."""
    return PRESENT_NAMES.get(code, code)


def stored(code: str) -> Code:
    """The entry of a stored code, which a process of another release may have written."""
    name = present_name(code)
    return CATALOGUE.get(name) or Code(
        name,
        Category.SERVICE,
        Severity.ERROR,
        Advice.PERSON,
        "A code of a later release",
        "Read the detail. `GET /v1/error-codes` explains the code once all processes run the later release.",
    )
