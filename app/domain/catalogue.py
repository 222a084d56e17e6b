"""The catalogue of codes: everything that Registrar can report as wrong, with what to do about it.

Callers' programs rely on codes: a code's meaning never changes, and a renamed code is accepted under its old
name for one more release (`app.domain.former_codes`). The API serves the table at `GET /v1/error-codes`.
Refusals, row findings and outcomes all refer to it, so each remedy is written in one place only.
"""

from dataclasses import dataclass
from enum import StrEnum


class Category(StrEnum):
    REQUEST = "request"  # the call itself was refused; nothing was stored
    FILE = "file"  # a whole file or one of its columns, while it is read
    ROW = "row"  # one device of an order, found before anything was sent
    UPSTREAM = "upstream"  # one device, as Microsoft answered
    CONNECTION = "connection"  # the partner's access to Microsoft
    SERVICE = "service"  # Registrar itself
    COMMAND = "command"  # the command line, before or instead of a call to the API


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


class Advice(StrEnum):
    """What to do next."""

    RETRY = "retry"  # send the same again later
    PERSON = "person"  # take the step in `remedy` first
    NEVER = "never"  # the same request cannot work; send a different one
    NONE = "none"  # nothing to do


@dataclass(frozen=True, slots=True)
class Code:
    code: str
    category: Category
    severity: Severity
    advice: Advice
    title: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One remark about one field of one device. `detail` never contains a hash."""

    code: str
    field: str
    detail: str

    @property
    def severity(self) -> Severity:
        return lookup(self.code).severity

    @property
    def is_error(self) -> bool:
        return self.severity is Severity.ERROR

    def as_json(self) -> dict[str, str]:
        """The form in which it is stored with its row."""
        return {"code": self.code, "field": self.field, "detail": self.detail}


def _rows() -> list[Code]:
    request, file, row, upstream = Category.REQUEST, Category.FILE, Category.ROW, Category.UPSTREAM
    connection, service, command = Category.CONNECTION, Category.SERVICE, Category.COMMAND
    error, warning = Severity.ERROR, Severity.WARNING
    retry, person, never, none = Advice.RETRY, Advice.PERSON, Advice.NEVER, Advice.NONE
    return [
        # --- the call ---------------------------------------------------------------------------
        Code("not_json", request, error, never, "The body is not JSON", "Send a UTF-8 JSON object."),
        Code("validation_failed", request, error, never, "The request does not have the documented shape",
             "Correct the fields named in `errors` and send it again."),
        Code("unsupported_media_type", request, error, never, "This content type is not accepted here",
             "Send `Content-Type: application/json`; `text/csv` where a file is asked for. No "
             "`Content-Encoding` is read, except gzip with `POST /v1/imports`."),
        Code("body_too_large", request, error, never, "The body is over the limit",
             "Send less in one call: the detail names the limit of this one. An order has at most 10,000 devices; "
             "split a larger one."),
        Code("body_too_complex", request, error, never, "The body has more objects, lists or values than this call allows",
             "Send only the documented fields, each once. An order has at most 10,000 devices; split a larger "
             "one."),
        Code("large_bodies_waiting", request, error, retry, "Too many large bodies are being read now",
             "Send it again after the time in `Retry-After`, and send fewer large orders at the same time."),
        Code("intake_interrupted", request, error, retry, "The process that handled the body ended before it was done",
             "Send the same call again after the time in `Retry-After`, with the same reference and "
             "Idempotency-Key: nothing is done twice. Whether the first call took effect is not known until then."),
        Code("too_many_devices", request, error, never, "The order has more devices than one order may have",
             "Split it into orders of at most 10,000 devices."),
        Code("unauthenticated", request, error, person, "No valid API key was sent",
             "Send `Authorization: Bearer <API key>` with a key that is neither expired nor revoked."),
        Code("authorization_repeated", request, error, never, "The call has two Authorization headers",
             "Send one `Authorization: Bearer <API key>`. If a proxy or a library adds another one, turn that off."),
        Code("too_many_wrong_keys", request, error, person, "Too many calls with a wrong API key",
             "Stop the program that has the wrong key, then wait for the time in `Retry-After`. Calls with a valid "
             "key are still answered."),
        Code("malformed_http", request, error, never, "This is not an HTTP/1.1 request",
             "Send requests with an HTTP library. Speak TLS to the proxy, not to the API itself."),
        Code("head_too_large", request, error, never, "The request line and headers are over the limit",
             "Send fewer or shorter headers, or a shorter path: the detail names the limits."),
        Code("head_too_slow", request, error, retry, "The request line and headers took too long to arrive",
             "Send the request again, all at once."),
        Code("body_too_slow", request, error, retry, "The body arrived too slowly",
             "Send it again, with the same Idempotency-Key, over a faster connection."),
        Code("too_many_connections", request, error, retry, "There are too many connections",
             "Wait for the time in `Retry-After`. Reuse connections instead of opening one for each call."),
        Code("scope_missing", request, error, person, "The API key may not do this",
             "Use a key with the scope named in the detail."),
        Code("key_rotated_already", request, error, never, "This API key has been replaced by another one",
             "Rotate the new key, which the detail names. If it is lost, ask the operator to revoke both keys "
             "and to make another."),
        Code("metrics_not_open", request, error, person, "Metrics are not open to this address",
             "Read them from a network of REGISTRAR_METRICS_ALLOWED_NETWORKS, directly and not through a proxy, or "
             "ask the operator to add yours."),
        Code("not_found", request, error, never, "It does not exist, or it belongs to another partner",
             "Check the id; ids of other partners are answered like unknown ones."),
        Code("unknown_customer", request, error, never, "The customer does not exist, or belongs to another partner",
             "Create the customer first with `POST /v1/customers`, or correct the id."),
        Code("unknown_connection", request, error, never, "The connection does not exist, or belongs to another partner",
             "Create the connection first with `POST /v1/connections`, or correct the id."),
        Code("unknown_platform", request, error, never, "There is no such platform",
             "Use a name from `GET /v1/platforms`."),
        Code("platform_not_automated", request, error, never, "Registrar cannot drive this platform by API",
             "Use a platform whose `automated` or `portal` is true in `GET /v1/platforms`; what is asked of "
             "Microsoft elsewhere is recorded by hand for a portal connection."),
        Code("platform_cannot_tell", request, error, never, "This platform's API has no answer to that",
             "Record consent with `POST /v1/customers/{id}/consent:record`. Whether a connection works "
             "shows when the next order is sent."),
        Code("partner_role_cannot_use_api", request, error, never,
             "Microsoft does not offer this API to the partner's role",
             "Indirect resellers register in the Partner Center portal: a new connection is a portal connection, "
             "whose orders are files and whose consent is recorded by hand."),
        Code("not_a_portal_order", request, error, never, "Registrar sends this order itself",
             "There is nothing to upload or to record. Follow the order: Microsoft's answers arrive automatically."),
        Code("consent_is_looked_up", request, error, never, "This customer's consent is read at Microsoft",
             "Use `consent:recheck` to read it now. It is recorded by hand where nothing can be looked up: for portal "
             "connections, and for platforms that do not show who has consented."),
        Code("result_not_readable", request, error, never, "The portal's result file cannot be read",
             "Give it a column with the serial number or PKID and a column Status or Error code, or record the "
             "outcome with `:record-outcome`."),
        Code("method_not_allowed", request, error, never, "This path does not take this method",
             "See the API documentation at `/docs`."),
        Code("reference_taken", request, error, never, "An order with this reference already exists",
             "Follow the order named in the detail; a new order needs a new reference."),
        Code("already_exists", request, error, never, "The same thing already exists",
             "Use the existing one named in the detail."),
        Code("quota_exceeded", request, error, person, "A quota of the partner is used up",
             "The detail names the quota, its limit and what to do; `GET /v1/limits` shows all quotas with their "
             "use. With status 429, wait and try again. With 422, make room, or ask the operator to raise the "
             "quota with `registrar partner quota`."),
        Code("order_rejected", request, error, never, "At least one row is invalid and `on_invalid` is reject",
             "Correct the rows named in `errors` and send the whole order again; nothing was stored."),
        Code("idempotency_key_reused", request, error, never,
             "This Idempotency-Key was used with another request",
             "Use a new key for a new request; send the identical body to replay the first one."),
        Code("idempotency_key_invalid", request, error, never, "The Idempotency-Key is not usable",
             "Use 1 to 255 printable ASCII characters, for instance a UUID."),
        Code("idempotency_in_progress", request, error, retry,
             "The first request with this Idempotency-Key is still running",
             "Wait for the time in `Retry-After`, then send the same request again."),
        Code("idempotency_answer_lost", request, error, person,
             "This Idempotency-Key was answered, but the answer can no longer be shown",
             "The call has taken effect: look for what it made. The operator finds the reason in the log under "
             "`stored_answer_not_opened`. Send a new request with a new key."),
        Code("idempotency_secret_gone", request, error, never,
             "This Idempotency-Key was answered with a secret that is no longer shown",
             "The call has taken effect. An answer with a secret can be repeated for an hour. Rotate the "
             "secret, with a new Idempotency-Key, to be shown another one."),
        Code("removal_blocked", request, error, person, "Unfinished orders or imports block the removal",
             "`errors` names them. Wait for the outcome or cancel the orders; retry devices whose outcome is "
             "unknown, or record it; commit or discard the imports. Then call again."),
        Code("removal_not_confirmed", request, error, person, "It has contents that would be removed with it",
             "Look at them with `dry_run=true`. Call with `everything=true` to remove them as well."),
        Code("being_removed", request, error, never, "It is being removed, so nothing can be added to it",
             "Use another customer or connection. If the removal was interrupted, call it again to finish it."),
        Code("invalid_state", request, error, never, "That is not possible in the present state",
             "The detail says why, and what to do if anything can be done; the resource shows its present state."),
        Code("invalid_page_token", request, error, never, "The page token is not one of this list",
             "Use it only with the path and filters of the page that it came from, or start again "
             "without `page_token`."),
        Code("invalid_parameter", request, error, never, "A parameter has a value that cannot be used",
             "Correct the parameter named in `errors`."),
        Code("url_refused", request, error, never, "Webhooks may not go to this URL",
             "Use a public https URL, or ask the operator to allow the network it is in."),
        Code("upload_broken_off", request, error, retry, "The upload did not arrive completely",
             "Send the file again; the part that arrived was discarded."),
        Code("import_too_large", request, error, never, "The file is over the limit",
             "Compress it with gzip, or split it; the detail names the limit."),
        Code("import_rejected", request, error, never, "Rows are invalid and `on_invalid` is reject",
             "Correct the rows of `errors.csv` and upload the file again, or commit with `accept_valid`."),
        Code("import_has_no_valid_row", request, error, never, "No row of the import can be ordered",
             "Correct the rows of `errors.csv` and upload them again."),
        Code("unknown_profile", request, error, never, "The vendor profile does not exist, or belongs to another partner",
             "Create it first with `POST /v1/vendor-profiles`, or correct the name."),
        Code("import_given_up", file, error, person, "Several attempts to process the import have failed",
             "Tell the operator; the workers' logs say why. Splitting the file may help."),
        # --- a file from which no rows are read ---------------------------------------------------
        Code("empty_file", file, error, never, "The file is empty", "Export it again, then upload it."),
        Code("too_many_rows", file, error, never, "The file has more rows than there is room for",
             "The detail names the limit. Split the file into smaller ones. If the limit is the quota `staged_rows` of "
             "`GET /v1/limits`, discard imports that are not needed, or ask the operator to raise it."),
        Code("file_too_large", file, error, never, "The file is too large",
             "Split it into smaller files."),
        Code("workbook_too_large", file, error, never, "The workbook takes too much space when unpacked",
             "Save the sheet as CSV UTF-8 and upload that."),
        Code("compression_bomb", file, error, never, "The file unpacks to far more data than a list of devices has",
             "Upload it without compression; a workbook as CSV UTF-8."),
        Code("gzip_damaged", file, error, never, "The gzip file is damaged", "Compress or download it again."),
        Code("workbook_damaged", file, error, never, "The workbook is damaged",
             "Open it in a spreadsheet program, save it as a new .xlsx and upload that."),
        Code("xml_damaged", file, error, never, "The XML is damaged", "Upload the OA3.xml as oa3tool wrote it."),
        Code("xml_declares", file, error, never, "The XML declares entities or a document type",
             "Upload the OA3.xml as oa3tool wrote it."),
        Code("columns_unknown", file, error, never, "No column of the file identifies a device",
             "Give the columns names such as Device Serial Number and Hardware Hash, or use a profile."),
        Code("file_is_unsupported_workbook", file, error, never, "The file is an Excel workbook of a kind that cannot be read",
             "Save the sheet as .xlsx without a password, or as CSV UTF-8, and upload that."),
        Code("sheet_unknown", file, error, never, "The workbook has no sheet of this name",
             "Give one of the names that the detail lists, or none to let Registrar choose."),
        Code("file_is_html_table", file, error, never, "The file is a web page with a table, named like a workbook",
             "Open it in Excel and save it as .xlsx or CSV UTF-8, then upload that file."),
        Code("file_is_xml_spreadsheet", file, error, never, "The file is an XML Spreadsheet 2003",
             "Open it in Excel and save it as .xlsx or CSV UTF-8, then upload that file."),
        Code("file_is_numbers_document", file, error, never, "The file is an Apple Numbers document",
             "In Numbers, choose File > Export To > Excel (.xlsx) or CSV, and upload that file."),
        Code("file_is_opendocument", file, error, never, "The file is an OpenDocument sheet",
             "Save it as .xlsx or CSV in the program that made it, and upload that file."),
        Code("file_is_web_page", file, error, never, "The file is a web page",
             "The download probably failed or needs a sign-in: download the file again."),
        Code("file_is_xml", file, error, never, "The file is XML, but not an OA3 report",
             "Upload the OA3.xml that oa3tool writes, or the devices as a CSV file."),
        Code("file_is_json", file, error, never, "The file is JSON, but not one device per line",
             "Write one JSON object per line, or send the JSON to the API as an order."),
        Code("file_is_rich_text", file, error, never, "The file is a word processor's document", "Save it as plain text (CSV)."),
        Code("file_is_pdf", file, error, never, "The file is a PDF document", "Ask its sender for the data as a CSV file."),
        Code("file_is_picture", file, error, never, "The file is a picture", "Upload the file itself, not a photo of it."),
        Code("file_is_database", file, error, never, "The file is a database", "Export its table as CSV and upload that."),
        Code("file_is_program", file, error, never, "The file is a program", "Upload the file that it writes."),
        Code("file_is_nested_gzip", file, error, never, "The file is a gzip file inside another one", "Compress it only once."),
        Code("file_is_archive", file, error, never, "The file is an archive, or compressed in another way than gzip",
             "Unpack it and upload the file inside, or compress that with gzip."),
        Code("file_is_cabinet", file, error, never, "The file is a cabinet archive (.cab)", "Unpack it and upload the CSV file inside."),
        Code("file_is_not_text", file, error, never, "The file is not text, or mixes several encodings",
             "Export the devices again as one CSV file in UTF-8."),
        Code("file_without_rows", file, error, never, "The file has no row with a device",
             "Export it again with its devices, then upload it."),
        # --- a file that can be read, and its columns ---------------------------------------------
        Code("column_unknown", file, warning, none, "A column is unknown and not used",
             "Nothing to do if it is not needed; otherwise rename it or map it in a profile."),
        Code("column_repeated", file, warning, none, "Two columns mean the same field; one of them is used",
             "Check that the right one is used; a profile can choose the other."),
        Code("column_not_sent", file, warning, none, "A column is kept with the order and not sent to Microsoft",
             "Nothing to do."),
        Code("column_by_content", file, warning, none, "A column was recognised by its content, not by its name",
             "Check that it was recognised correctly; a profile settles it for the next files."),
        Code("header_missing", file, warning, none, "The file has no header",
             "Check that its columns were recognised correctly; to be sure, add a header or use a profile."),
        Code("corporate_identifier_layout", file, warning, none, "The file is laid out like corporate device identifiers",
             "Compare manufacturer and model with a device: their dots and commas may have been removed."),
        Code("lines_above_table", file, warning, none, "Lines above the table were skipped",
             "Nothing to do if they are a title."),
        Code("header_repeated", file, warning, none, "A second header changes the columns inside the file",
             "Check the rows below it; several files were probably joined."),
        Code("profile_column_missing", file, warning, none, "The profile names a column that the file lacks",
             "Check that it is this supplier's profile and that the supplier has not renamed the column."),
        Code("encoding_guessed", file, warning, none, "The file's encoding is not stated and was guessed",
             "Look at the letters of group tags and names. If they are wrong, name the encoding with "
             "`--encoding` or `encoding=`, or save the file as CSV UTF-8."),
        Code("devices_side_by_side", file, warning, none, "A line has several devices side by side",
             "Check the number of devices; each became a row, with the same line number."),
        Code("rows_in_quotes", file, warning, none, "Each row is enclosed in quotation marks as a whole",
             "Check that the columns were recognised correctly; the rows were split at their separators."),
        Code("names_beside_values", file, warning, none, "Names and values are in pairs, one pair per line",
             "Check the number of devices; each block of pairs was read as one device."),
        Code("sheets_unused", file, warning, none, "Other sheets of the workbook are not read",
             "Nothing to do if they have no devices; otherwise upload each sheet as a separate file."),
        Code("sheets_with_devices", file, warning, none, "Other sheets have devices and are not read",
             "Read them one by one with `--sheet` or `sheet=`, or upload each as a separate file."),
        Code("sheet_hidden", file, warning, none, "The sheet that is read is hidden",
             "Check it before you order: somebody has hidden it, perhaps because it is out of date."),
        Code("rows_hidden", file, warning, none, "Hidden rows are not read",
             "Read them too with `--include-hidden` or `include_hidden=true`, or leave them out with `false`."),
        Code("columns_hidden", file, warning, none, "Hidden columns are not read",
             "Read them too with `--include-hidden` or `include_hidden=true`, or leave them out with `false`."),
        Code("columns_hidden_unknown", file, warning, none, "Hidden columns with unknown names are not read",
             "Nothing to do if they are not needed; otherwise show them in the workbook and name them."),
        Code("omitted_as_asked", file, warning, none, "Hidden rows, hidden columns or other sheets are left out, as requested",
             "Nothing to do."),
        Code("cells_split", file, warning, none, "All values of a row are in one cell and were split",
             "Check that the columns were recognised correctly, or import the text as columns in the spreadsheet."),
        # --- a row that could not be read unchanged -----------------------------------------------
        Code("row_short", row, warning, none, "The row has fewer cells than the file has columns",
             "Nothing to do if the missing ones are empty; otherwise compare the row with its source."),
        Code("row_long", row, warning, none, "The row has more cells than the file has columns",
             "Compare the row with its source: a separator inside a value moves everything after it."),
        Code("row_torn", row, error, never, "The row has too many cells, and it is unclear which value was split",
             "Put quotation marks around the value that contains a separator, or add the missing column's name."),
        Code("value_joined", row, warning, none, "A value that was split at a separator was joined again",
             "Compare it with the device; put quotation marks around such values."),
        Code("hash_joined", row, warning, none, "A hash that was broken over several lines was joined",
             "Nothing to do if the hash is whole; otherwise capture it again."),
        Code("separator_differs", row, warning, none, "The row has another separator than the file",
             "Nothing to do if the row was understood correctly."),
        Code("identity_contradicts", row, error, never, "Two columns name different devices in one row",
             "Write each device in its own row, or remove one of the columns; a profile can settle it."),
        Code("columns_differ", row, warning, none, "Two columns mean the same field and differ in this row",
             "Compare the value that is used with the device; a profile can choose the other column."),
        Code("letters_guessed", row, warning, none, "A value to be sent has letters of a guessed encoding",
             "Look at the value. If it is wrong, name the encoding with `--encoding` or `encoding=`."),
        Code("quote_inside", row, warning, none, "A quoted value contains a quotation mark",
             "Compare the value with the device; double such marks."),
        Code("quote_misplaced", row, error, never, "Text follows the quotation mark that closes a value",
             "Correct the quotation marks of this value: write a mark inside it twice."),
        Code("quote_unclosed", row, error, never, "A quotation mark is never closed",
             "Correct the quotation marks of this line."),
        Code("line_too_long", row, error, never, "The line is longer than a device can be",
             "Check that the file has one device per line."),
        Code("too_many_cells", row, error, never, "The row has far too many cells",
             "Check that the file has one device per line and few columns."),
        Code("cell_too_long", row, error, never, "A cell is longer than any value can be",
             "Enter the value again from its source."),
        Code("encoding_mixed", row, warning, none, "A value is in another encoding than the file",
             "Check the letters with accents in this row."),
        Code("character_unreadable", row, error, never, "A character of a value cannot be read",
             "Enter the value again by hand."),
        Code("names_missing", row, error, never, "The row lacks the names that the report's other rows repeat",
             "Export the report again, or copy the row in from a whole report."),
        Code("line_not_json", row, error, never, "The line is not a JSON object",
             "Write one JSON object on each line."),
        Code("key_repeated", row, error, never, "A key occurs twice in one JSON object",
             "Write each key once, with the intended value."),
        Code("value_nested", row, warning, none, "A value is a list or an object and is not used",
             "Nothing to do if it is not needed; the values of a device are text."),
        Code("serial_from_number", row, warning, none, "The serial number is stored as a number",
             "Compare it with the device: leading zeros are lost. Format the column as text."),
        Code("cell_is_date", row, error, never, "A spreadsheet turned the value into a date",
             "Format the column as text and enter the value again from the source."),
        Code("cell_is_error", row, error, never, "The cell shows a spreadsheet error",
             "Correct the formula, or enter the value itself."),
        Code("formula_without_result", row, error, never, "The cell holds a formula without its result",
             "Open the workbook in Excel, save it and upload it again, or enter the values themselves."),
        Code("value_is_boolean", row, error, never, "The value is TRUE or FALSE, which no device has",
             "Enter the value again from its source, as a text."),
        Code("number_rounded", row, error, never, "The number has more digits than a spreadsheet keeps",
             "Format the column as text and enter the value again from the source."),
        # --- one device, before sending -----------------------------------------------------------
        Code("missing_identity", row, error, never, "The device has no usable identity",
             "Give a PKID (13 digits), or serial number + manufacturer + model, or the hardware hash."),
        Code("incomplete_tuple", row, error, never, "Serial number, manufacturer or model is missing",
             "Give all three, exactly as the firmware has them, or a PKID or hardware hash instead."),
        Code("identity_not_accepted", row, error, never, "The platform does not take this kind of identity",
             "See `identities` of the platform in `GET /v1/platforms`."),
        Code("identity_reduced", row, warning, none, "Only part of the identity is sent",
             "Nothing to do: the platform takes one kind of identity; the other fields are kept for search."),
        Code("comma_in_value", row, error, never, "The portal's file cannot carry a comma or a quotation mark",
             "Register the device by PKID or hardware hash instead of the tuple, or use a group tag without it: "
             "portals take no quoted values."),
        Code("value_not_in_format", row, error, never, "The portal's file cannot carry a value of this device",
             "Register the device by PKID or hardware hash instead of the tuple, or use a group tag of plain "
             "letters, digits and signs."),
        Code("product_key_is_product_id", row, error, never, "A Windows Product ID is not a PKID",
             "Use the 13-digit Product Key ID from the box label or OA3.xml, or another identity."),
        Code("product_key_is_license_key", row, error, never, "A 25-character product key is not a PKID",
             "Remove the key (it is a secret) and use the 13-digit Product Key ID from the box label."),
        Code("product_key_scientific", row, error, never, "A spreadsheet destroyed the PKID",
             "Format the column as text and enter the 13 digits again from the source."),
        Code("product_key_placeholder", row, warning, none, "The PKID is a placeholder and is ignored",
             "Nothing to do if the device has another identity."),
        Code("product_key_unusual", row, warning, none, "A PKID has 13 digits; this one does not",
             "Compare it with the box label."),
        Code("product_key_cleaned", row, warning, none, "Blanks, dashes or a label in the PKID were removed",
             "Nothing to do if the 13 digits named in the detail are those of the box label."),
        Code("product_key_impossible", row, error, never, "This cannot be a PKID",
             "Use the 13-digit Product Key ID from the box label or OA3.xml, or another identity."),
        Code("value_placeholder", row, warning, none, "A placeholder counts as empty",
             "Nothing to do if there is no such value; otherwise enter it from its source."),
        Code("value_not_sent", row, warning, none, "An unusable value is not sent",
             "Nothing to do: another identity of the row is sent. Correct the source if it happens often."),
        Code("value_unlikely", row, warning, none, "A value is unlikely to be what the firmware reports",
             "Compare it with the device's firmware: the value that is sent must match exactly."),
        Code("value_torn", row, error, never, "A value is only the end of another value",
             "Put values with a comma into quotation marks, or correct the cells of the row."),
        Code("value_is_formula", row, error, never, "The value is a formula, not its result",
             "Save the file again from the spreadsheet program, or enter the value itself."),
        Code("value_is_secret", row, error, never, "A product key or part of a hash is where a value belongs",
             "Remove it from the file: a product key is a secret. It was not stored."),
        Code("secret_left_out", row, warning, none, "A product key or part of a hash was left out",
             "Remove it from the file: a product key is a secret. It was not stored."),
        Code("several_serials", row, error, never, "A cell contains several serial numbers",
             "Give each device its own row."),
        Code("serial_not_ascii", row, error, never, "The serial number has a letter that serial numbers cannot have",
             "Enter the serial number again with plain letters and digits."),
        Code("manufacturer_placeholder", row, error, never, "The manufacturer is a placeholder",
             "Enter the manufacturer as the firmware has it, or register the device by hardware hash or PKID."),
        Code("model_placeholder", row, error, never, "The model is a placeholder",
             "Enter the model as the firmware has it, or register the device by hardware hash or PKID."),
        Code("serial_placeholder", row, error, never, "The serial number is a placeholder",
             "Register this device by hardware hash or PKID, or have the maker set the serial number."),
        Code("serial_placeholder_in_hash", row, warning, none, "The serial number in the hash is a placeholder",
             "The device is registered by its hash; several devices may show the same serial number."),
        Code("serial_scientific", row, error, never, "A spreadsheet destroyed the serial number",
             "Format the column as text and enter the serial number again from the source."),
        Code("value_trimmed", row, warning, none, "Blanks around a value were removed",
             "Nothing to do; correct the source if it happens often."),
        Code("value_quoted", row, warning, none, "Quotation marks or a formula around a value were removed",
             "Nothing to do; correct the source if it happens often."),
        Code("serial_looks_like_date", row, warning, none, "The serial number looks like a date",
             "Compare it with the device: a spreadsheet may have made a date of it."),
        Code("value_too_long", row, error, never, "A value is too long",
             "Check that the columns have not shifted."),
        Code("value_has_control_characters", row, error, never, "A value has invisible control characters",
             "Enter the value again by hand."),
        Code("group_tag_too_long", row, error, never, "The group tag is longer than the limit",
             "Use a shorter group tag; the limit is named in the detail."),
        Code("customer_missing", row, error, never, "The row names no customer",
             "Fill in the customer column, or name the customer with the upload."),
        Code("customer_not_found", row, error, never, "No customer has this tenant, domain or name",
             "Create the customer with `POST /v1/customers`, or correct the cell."),
        Code("customer_ambiguous", row, error, never, "Several customers have this tenant, domain or name",
             "Write the customer's Entra tenant id, or its id here, into the cell."),
        Code("customer_contradicts", row, error, never, "The row is for another customer than the whole file",
             "Correct the cell, or upload the file without naming a customer for all of it."),
        Code("customer_name_unknown", row, warning, none, "The file's name for the customer is unknown",
             "Nothing to do if the customer given with the upload is the right one."),
        Code("already_registered_here", row, warning, none, "The customer has this device from an earlier order",
             "Nothing to do: Microsoft will say so again. Its earlier group tag stays as it was."),
        Code("registered_for_other_customer", row, warning, none,
             "Another customer of yours has this device registered",
             "Nothing to do if the device has a new owner and was deregistered there: until then Microsoft refuses it "
             "(808). Otherwise correct the customer."),
        Code("duplicate_open_elsewhere", row, warning, none, "An open order already has this device",
             "Nothing to do if both are meant; otherwise cancel one of the two orders."),
        Code("model_unlike_earlier", row, warning, none, "Earlier devices with similar serial numbers had another maker or model",
             "Nothing to do if manufacturer and model are exactly right; otherwise compare them with the device."),
        Code("duplicate_in_order", row, error, never, "The same device is already in this order",
             "Nothing to do: the earlier row named in the detail registers the device."),
        Code("duplicate_with_other_tag", row, error, never,
             "The same device is already in this order, with another group tag",
             "The earlier row is sent. If this one's tag is right, remove the earlier row and send this one."),
        Code("hash_not_base64", row, error, never, "The hardware hash is not base64",
             "Capture the hash again; do not edit it in a spreadsheet."),
        Code("hash_not_a_hash", row, error, never, "This is not a hardware hash",
             "A hardware hash starts with T0 and has 4,000 characters; check the column."),
        Code("hash_truncated", row, error, never, "The hardware hash is cut off inside its data",
             "Capture the hash again, or copy it whole (4,000 characters)."),
        Code("hash_checksum_mismatch", row, error, never, "The hardware hash is damaged: its checksum is wrong",
             "Capture the hash again, or copy it again from the source file."),
        Code("hash_malformed", row, error, never, "The hardware hash has a broken structure",
             "Capture the hash again with a current Windows."),
        Code("hash_obsolete", row, error, never, "The hash comes from an old Windows or an old tool",
             "Capture it again with Windows 10 1803 or newer."),
        Code("hash_lacks_serial", row, error, never, "The hash has no serial number inside",
             "Microsoft refuses such hashes (802): have the firmware's serial number set, then capture again."),
        Code("hash_lacks_manufacturer", row, error, never, "The hash has no manufacturer inside",
             "Microsoft refuses such hashes (802): have the firmware data set, then capture again."),
        Code("hash_repaired", row, warning, none, "The hash was repaired without loss",
             "Nothing to do: only padding was cut or added; the checksum proves that the data is complete."),
        Code("hash_from_winpe", row, warning, none, "The hash was captured in Windows PE",
             "It lacks data such as Wi-Fi; prefer a capture in full Windows."),
        Code("hash_lacks_tpm", row, warning, none, "The hash shows no TPM",
             "Self-deploying mode and pre-provisioning will not work on this device."),
        Code("hash_serial_mismatch", row, error, never, "The serial number is not the one inside the hash",
             "The hash belongs to another device: check the row against the device."),
        Code("hash_manufacturer_mismatch", row, error, never, "The manufacturer is not the one inside the hash",
             "The hash belongs to another device, or the column is wrong: check the row."),
        Code("hash_model_mismatch", row, error, never, "The model is not the one inside the hash",
             "The hash belongs to another device, or the column is wrong: check the row."),
        Code("hash_product_key_mismatch", row, error, never, "The PKID is not the one inside the hash",
             "The hash belongs to another device: check the row against the device."),
        # --- one device, decided by Microsoft -----------------------------------------------------
        Code("already_registered", upstream, warning, none, "The device was registered for this customer before",
             "Nothing to do: the customer has it. Its earlier group tag stays as it was."),
        Code("assigned_to_other_tenant", upstream, error, person, "The device is registered to another organisation",
             "Ask the previous owner or its partner to deregister it; otherwise open a deregistration request "
             "with Microsoft and enclose the invoice. Then use `:retry-failed`."),
        Code("device_not_found", upstream, error, person, "Microsoft does not know this device",
             "Check that manufacturer, model and serial number match exactly (case matters); if the maker has not "
             "reported it yet, wait or register it by hardware hash."),
        Code("device_not_unique", upstream, error, never, "The identity fits more than one device",
             "Register it by hardware hash or PKID."),
        Code("upstream_invalid_hash", upstream, error, never, "Microsoft cannot read the hardware hash",
             "Capture the hash again in full Windows; check that the firmware has manufacturer and serial number."),
        Code("upstream_missing_identity", upstream, error, never, "Microsoft found no usable identity",
             "Give a PKID, a full tuple or a hash."),
        Code("upstream_duplicate", upstream, error, none, "Microsoft saw this device twice in one batch",
             "Look at the other row with this device in the same order: one of the two is processed."),
        Code("upstream_bad_request", upstream, error, person, "Microsoft found the request malformed",
             "Tell the operator; the request ids are on the batch."),
        Code("upstream_busy", upstream, error, retry, "Microsoft had a temporary storage problem",
             "Registrar tries again automatically; if that fails, use `:retry-failed`."),
        Code("already_entra_registered", upstream, error, person, "The device is already registered in Entra ID",
             "Ask the customer to remove the device object in Entra ID, then use `:retry-failed`."),
        Code("registered_by_other_tenant", upstream, error, person, "Another tenant's user registered this device",
             "Ask that organisation to remove it, then use `:retry-failed`."),
        Code("upstream_other", upstream, error, person, "Microsoft answered with a code Registrar does not know",
             "Microsoft's own words are in `upstream`; tell the operator."),
        Code("refused_at_portal", upstream, error, person, "The portal did not register the device",
             "Read the detail, which was recorded by hand; fix the cause, then use `:retry-failed`: it makes a "
             "new file."),
        Code("file_refused_at_portal", upstream, error, person, "The portal refused the whole file",
             "Read the portal's words, which were recorded by hand. Upload the file again once the cause is fixed, "
             "or cancel the order with `:cancel`."),
        Code("outcome_unknown", upstream, error, person, "It is not known whether Microsoft registered the device",
             "Look the device up at the platform, such as in Partner Center under the group tag; if it is missing, "
             "use `:retry-failed`: sending it again is harmless."),
        Code("batch_refused", upstream, error, person, "Microsoft refused the whole batch",
             "Microsoft's words are on the batch; correct the cause, then use `:retry-failed`."),
        Code("batch_split", upstream, warning, none, "Microsoft refused the whole batch; it is sent again in halves",
             "Nothing to do: its devices are in two newer batches of the order. If it happens often, make batches "
             "smaller with REGISTRAR_MAX_BATCH_DEVICES."),
        Code("group_tag_case_conflict", upstream, error, person,
             "The platform has this group tag with different capital letters",
             "Send the order with the spelling named in the detail, or use another tag: Autopilot tags are "
             "case-sensitive, Partner Center's batch names are not."),
        # --- the way to Microsoft -----------------------------------------------------------------
        Code("consent_missing", connection, error, person, "The customer has not accepted the relationship yet",
             "Send the customer the link that `POST /v1/customers/{id}/consent:request` answers with; the order continues automatically."),
        Code("consent_revoked", connection, error, person, "The customer has ended the relationship",
             "Ask the customer to accept the relationship again; held orders then continue automatically."),
        Code("credential_refused", connection, error, person, "Microsoft refuses the connection's credentials",
             "Give the connection a new client secret or refresh token, then `:check` it."),
        Code("credential_missing", connection, error, person, "The connection lacks a credential for this call",
             "Creating a group tag needs a refresh token (App+User): add one to the connection."),
        Code("client_secret_expired", connection, error, person, "The app's client secret has expired",
             "Make a new client secret of the app in Entra ID (App registrations, Certificates & secrets) and send "
             "it with `PATCH /v1/connections/{id}`."),
        Code("app_not_found", connection, error, person, "The app is not in the connection's Entra tenant",
             "Compare `client_id` and `entra_tenant_id` with the app registration, and see that the app is enabled. "
             "`PATCH /v1/connections/{id}` changes both; send the secrets with them."),
        Code("tenant_not_found", connection, error, person, "Entra does not know the connection's tenant",
             "Compare `entra_tenant_id` with the partner's tenant; `PATCH /v1/connections/{id}` changes it. Send "
             "the secrets with it."),
        Code("app_consent_missing", connection, error, person, "The app has no consent in the partner's tenant",
             "An administrator of the partner's tenant grants it in Entra ID (Enterprise applications, the app, "
             "Permissions). Then sign in again and send the new refresh token with `PATCH /v1/connections/{id}`."),
        Code("conditional_access_blocked", connection, error, person, "A Conditional Access policy blocks the sign-in",
             "The owner of the policies in the partner's tenant looks the refusal up in Entra's sign-in log and "
             "lets the integration account pass. New credentials do not help. Then `:check` the connection."),
        Code("sign_in_frequency", connection, error, person, "A sign-in frequency policy has ended the sign-in",
             "Sign in again and send the new refresh token with `PATCH /v1/connections/{id}`. It will end again: "
             "exempt the integration account from the Conditional Access policy for sign-in frequency."),
        Code("refresh_token_expired", connection, error, person, "The refresh token has expired",
             "It was not used for 90 days. Sign in again and send the new one with `PATCH /v1/connections/{id}`; "
             "a connection in use renews it automatically."),
        Code("sign_in_revoked", connection, error, person, "The sign-in was revoked",
             "The account's password was changed or reset, or its sessions were revoked. Sign in again and send "
             "the new refresh token with `PATCH /v1/connections/{id}`."),
        Code("user_disabled", connection, error, person, "The account that signed in is disabled",
             "Enable it in Entra ID, or sign in with another account and send its refresh token with "
             "`PATCH /v1/connections/{id}`."),
        Code("mfa_required", connection, error, person, "Microsoft asks for multi-factor authentication",
             "Sign in again with MFA, and give the connection the new refresh token."),
        Code("access_denied", connection, error, person, "Microsoft denies access",
             "Check the relationship, the partner agreement and the roles of the integration account."),
        Code("upstream_throttled", connection, error, retry, "Microsoft asks to slow down",
             "Nothing to do: Registrar waits as long as Microsoft asked."),
        Code("upstream_unavailable", connection, error, retry, "Microsoft is unavailable or answers with errors",
             "Nothing to do: Registrar tries again with growing pauses."),
        Code("upstream_not_understood", connection, error, person, "Registrar cannot read Microsoft's answer",
             "Tell the operator: `said` shows what came instead. Check that no proxy answers in Microsoft's "
             "place, and that this is the newest Registrar. It tries again with growing pauses, and continues "
             "automatically."),
        Code("customers_not_read", connection, error, person, "The list of customers cannot be read",
             "Orders that wait for consent stay held until it can be read. `said` is Microsoft's answer: check the network "
             "and Microsoft's service health. Registrar tries again automatically; `:check` tries at once."),
        # --- what work waits for ------------------------------------------------------------------
        Code("call_rate_used_up", connection, warning, none, "The connection's rate of calls is used up",
             "Nothing to do: Registrar calls as often as Microsoft has allowed so far, and continues automatically."),
        Code("group_tag_being_created", connection, warning, none, "Another batch is creating the group tag",
             "Nothing to do: the devices are added to the group tag as soon as it exists."),
        Code("processing_at_microsoft", upstream, warning, none, "Microsoft is processing the devices",
             "Nothing to do: Registrar asks until Microsoft has reported each device's outcome."),
        Code("outcome_being_looked_up", upstream, warning, none,
             "Registrar is checking whether Microsoft has the devices",
             "Nothing to do: an answer was lost, and Registrar sends the devices again or looks them up."),
        Code("waiting_for_turn", service, warning, none, "Other work goes first",
             "Nothing to do: customers take turns, and so do the batches of each."),
        Code("portal_upload_due", service, error, person, "A file waits to be uploaded at the portal",
             "Get it with `registrar portal files`, upload it, then run `registrar portal uploaded`."),
        Code("portal_outcome_due", service, error, person, "The portal's outcome has not been recorded",
             "Record it with `registrar portal result` as soon as the portal shows it."),
        Code("no_worker_alive", service, error, person, "No worker is running",
             "Start one with `registrar worker`; the last one's log says why it ended. Orders are still accepted, "
             "and nothing is lost."),
        Code("redis_unavailable", service, error, person, "Redis does not answer",
             "Start Redis again. Orders are still accepted and nothing is lost, but workers react more slowly."),
        # --- Registrar ----------------------------------------------------------------------------
        Code("rate_limited", service, error, retry, "Too many calls with this API key",
             "Wait for the time in `Retry-After`."),
        Code("too_many_calls_at_once", service, error, retry, "Too many calls of this partner at the same time",
             "Nothing has been done. Make fewer calls at the same time, and try again after the time in "
             "`Retry-After`."),
        Code("turn_did_not_come", service, error, retry, "The call waited too long for its turn",
             "Nothing has been done. Try again after the time in `Retry-After`. If it happens often, make fewer "
             "large calls at the same time, or ask the operator to run more API processes."),
        Code("read_took_too_long", service, error, retry, "Reading took too long and was stopped",
             "Ask for less: filter by `customer_id`, `order_id`, `batch_id`, `reference` or the whole serial "
             "number, or use a smaller `page_size`. If small reads are stopped as well, the database is "
             "overloaded: try again after the time in `Retry-After`."),
        Code("not_ready", service, error, retry, "The service is not ready",
             "Try again shortly; `/readyz` says what is missing."),
        Code("batch_broken", service, error, person, "Registrar itself could not process the batch",
             "Tell the operator: the log has the cause under the batch's id. Once it is fixed, use "
             "`:retry-failed`: nothing was sent."),
        Code("internal", service, error, retry, "Something went wrong inside Registrar",
             "Try again with the same Idempotency-Key; give the operator the correlation id."),
        # --- the command line -----------------------------------------------------------------------
        Code("command_failed", command, error, person, "The command cannot continue",
             "The detail says why, and what to do."),
        Code("command_refused", command, error, never, "The command changed nothing, because its input is wrong",
             "The detail says what to correct."),
        Code("command_interrupted", command, error, person, "The command was interrupted",
             "Check the present state, then run the command again."),
        Code("command_misused", command, error, never, "The command was not used correctly",
             "`--help` after the command shows how to use it."),
        Code("not_confirmed", command, error, person, "The question was not answered with yes",
             "Nothing was changed. Run the command again and answer `y`, or add `--yes`."),
        Code("api_unreachable", command, error, person, "The API does not answer",
             "Check that it runs, and that REGISTRAR_API_URL or the profile names it."),
        Code("api_not_recognised", command, error, person, "The server at this address is not Registrar's API",
             "Check REGISTRAR_API_URL, and the proxy if there is one in front."),
        Code("api_url_unusable", command, error, never, "The address of the API is not a URL",
             "REGISTRAR_API_URL looks like http://127.0.0.1:8000."),
        Code("api_key_missing", command, error, person, "There is no API key to call with",
             "Set REGISTRAR_API_KEY, or use a profile: `registrar profile add`."),
        Code("api_key_unusable", command, error, never, "The API key has characters that no key has",
             "Copy the key again, whole."),
        Code("name_not_found", command, error, never, "Nothing has this name",
             "Correct the name; the lists (`registrar list`, `registrar customer list`) show what there is."),
        Code("name_ambiguous", command, error, never, "The name matches more than one thing",
             "Give one of the ids in the detail."),
        Code("profile_unusable", command, error, person, "The profiles' file cannot be used",
             "Correct the file as the detail says, or create the profile again with `registrar profile add`."),
        Code("file_not_written", command, error, person, "The file cannot be written",
             "Choose another place, or free some space."),
    ]  # fmt: skip


CATALOGUE: dict[str, Code] = {}
for _code in _rows():
    if _code.code in CATALOGUE:
        raise RuntimeError(f"code {_code.code} is in the catalogue twice")
    CATALOGUE[_code.code] = _code


def lookup(code: str) -> Code:
    """The entry of a code. Raises KeyError for an unknown code, which is a programming error."""
    return CATALOGUE[code]
