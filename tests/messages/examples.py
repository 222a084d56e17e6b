"""One example for every code of the catalogue: see `tests.messages`."""

from simulator.samples import hardware_hash
from tests.messages import HASH, TUPLE, File, Said, gzipped, hashed, lines, sheet
from tests.workbooks import Raw, workbook

DEVICE = "SYN0001,Contoso,Contoso Book 14"
KEY = "9999000000017"

REQUESTS = {
    "not_json": Said("The body is not JSON: unexpected character at byte 17."),
    "validation_failed": Said("devices.0.serial_number: Input should be a valid string"),
    "unsupported_media_type": Said("Content-Type is missing; send application/json."),
    "body_too_large": Said("The body has more than 67,108,864 bytes."),
    "too_many_devices": Said("The order has 10,001 devices; at most 10,000 are allowed."),
    "unauthenticated": Said("The API key has expired."),
    "scope_missing": Said("This needs the scope orders:write; the key has orders:read."),
    "not_found": Said("There is no order 018f6d3e-0000-7000-8000-000000000000."),
    "unknown_customer": Said("There is no customer 018f6d3e-0000-7000-8000-000000000000."),
    "unknown_connection": Said("There is no connection 018f6d3e-0000-7000-8000-000000000000."),
    "unknown_platform": Said("There is no platform intune_v2."),
    "platform_not_automated": Said("The platform store_for_business is data only."),
    "partner_role_cannot_use_api": Said("An indirect reseller may not use Partner Center's API."),
    "not_a_portal_order": Said("`registrar portal files` of an order that Registrar sends itself."),
    "consent_is_looked_up": Said("`consent:record` for a customer of a connection that has credentials."),
    "result_not_readable": Said(
        "No column says what became of the devices. Name it Status, Result, Error code or Error name."
    ),
    "method_not_allowed": Said("GET is not allowed here; allowed: POST."),
    "reference_taken": Said("The reference PO-4711 belongs to order 018f6d3e-0000-7000-8000-000000000000."),
    "already_exists": Said(
        "The customer with this Entra tenant exists: 018f6d3e-0000-7000-8000-000000000000."
    ),
    "order_rejected": Said("2 of 100 rows are invalid: see `errors`."),
    "idempotency_key_reused": Said("The key PO-4711 was used with another body."),
    "idempotency_key_invalid": Said("The key has 300 characters; at most 255 are allowed."),
    "idempotency_in_progress": Said("The first request with the key PO-4711 is still running."),
    "invalid_state": Said("The order is over: there is nothing left to cancel."),
    "invalid_page_token": Said("The token belongs to another list."),
    "invalid_parameter": Said("page_size: Input should be less than or equal to 1000"),
    "url_refused": Said("hooks.example.com resolves to an address of a private network."),
    "upload_broken_off": Said("The connection ended after 1,048,576 bytes."),
    "import_too_large": Said("The file has more than 4,000,000,000 bytes."),
    "import_rejected": Said("3 of 1,000 rows are invalid."),
    "import_has_no_valid_row": Said("All 20 rows are invalid."),
    "unknown_profile": Said("There is no vendor profile supplier-7."),
}

FILES = {
    "import_given_up": Said("It was begun 5 times and never ended."),
    "empty_file": File(b"", "(no byte)"),
    "too_many_rows": Said("A file with 1,000,001 rows."),
    "file_too_large": Said("A file that unpacks to more than 4 GB."),
    "compression_bomb": Said("A workbook of 100 kB that unpacks to 2 GB."),
    "gzip_damaged": File(gzipped(b"x" * 9000)[:-9], "(a gzip file without its end)"),
    "workbook_damaged": File(workbook({"A": [["x"]]})[:-40], "(an .xlsx file without its end)"),
    "xml_damaged": File(b"<Key><HardwareHash>T0H</Key>", "<Key><HardwareHash>T0H...</Key>"),
    "xml_declares": File(
        b'<!DOCTYPE Key [<!ENTITY x "y">]><Key>&x;</Key>', '<!DOCTYPE Key [<!ENTITY x "y">]><Key>&x;</Key>'
    ),
    "columns_unknown": lines("Colour,Weight", "red,7"),
    "excel_workbook": File(
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "(an .xls file of Excel 97 to 2003)"
    ),
    "web_page": lines("<!DOCTYPE html>", "<html><body>Sign in to continue</body></html>"),
    "xml": lines('<?xml version="1.0"?>', "<devices><device/></devices>"),
    "json": lines('[{"serial_number": "SYN0001"}]'),
    "rich_text": lines(r"{\rtf1\ansi SYN0001}"),
    "pdf": File(b"%PDF-1.7\n", "(a PDF)"),
    "picture": File(b"\x89PNG\r\n\x1a\n" + bytes(40), "(a PNG)"),
    "database": File(b"SQLite format 3\x00" + bytes(80), "(an SQLite file)"),
    "program": File(b"MZ\x90\x00" + bytes(80), "(an .exe file)"),
    "gzip": File(gzipped(gzipped(f"{TUPLE}\n{DEVICE}\n".encode())), "(a .csv.gz.gz file)"),
    "compressed": File(b"7z\xbc\xaf\x27\x1c" + bytes(60), "(a .7z file)"),
    "cabinet": File(b"MSCF" + bytes(60), "(a .cab file)"),
    "binary": File(bytes(range(256)) * 4, "(bytes that are no text)"),
    "file_without_rows": Said("A file with a header and nothing below it, sent to `registrar submit`."),
    "column_unknown": lines(f"{TUPLE},Shelf", f"{DEVICE},7"),
    "column_repeated": lines(f"{TUPLE},Serial No", f"{DEVICE},SYN0001"),
    "column_own": lines(f"{TUPLE},PO Number", f"{DEVICE},4711"),
    "column_by_content": File(
        f"Serial Number,Blob\nSYN0001,{HASH}\n".encode(), "Serial Number,Blob\nSYN0001,T0H..."
    ),
    "header_missing": File(f"SYN0001,,{HASH}\n".encode(), "SYN0001,,T0H..."),
    "identifier_order": lines("Microsoft,Surface Laptop 5,012345678901", "HP,HP ProBook 450 G5,5CD1000"),
    "lines_above": lines("Delivery of 1 June", "", TUPLE, DEVICE),
    "header_repeated": lines(
        TUPLE, DEVICE, "Manufacturer,Model,Serial Number", "Contoso,Contoso Book 14,SYN0002"
    ),
    "profile_column_missing": Said("The profile names the column SerialNo, which the file does not have."),
    "sheets_unused": File(
        workbook({"Devices": [TUPLE.split(","), DEVICE.split(",")], "Prices": [["Total"], [7]]}),
        "(a workbook with the sheets Devices and Prices)",
    ),
}

ROWS = {
    "row_short": lines(TUPLE + ",Group Tag,Shelf", DEVICE),
    "row_long": lines(TUPLE, f"{DEVICE},,x"),
    "quote_unclosed": lines(TUPLE, 'SYN0001,"Contoso,Contoso Book 14'),
    "line_too_long": File(
        f"{TUPLE}\n{'SYN0001,' * 300_000}\n".encode(), f"{TUPLE}\nSYN0001,SYN0001,SYN0001,..."
    ),
    "too_many_cells": File(f"{TUPLE}\n{DEVICE}{',' * 20_000}\n".encode(), f"{TUPLE}\n{DEVICE},,,,,,,..."),
    "cell_too_long": File(f"{TUPLE}\nSYN0001,{'x' * 300_000},y\n".encode(), f"{TUPLE}\nSYN0001,xxxxx...,y"),
    "encoding_mixed": File(
        f"{TUPLE}\n".encode() + "SYN0001,Größe,Ä\n".encode() + "SYN0002,Größe,Ä\n".encode("cp1252"),
        f"{TUPLE}\nSYN0001,Größe,Ä\nSYN0002,Gr\\xf6\\xdfe,\\xc4",
    ),
    "character_unreadable": lines(TUPLE, "SYN\ufffd001,Contoso,Contoso Book 14"),
    "names_missing": Said("The other rows of this Configuration Manager report repeat the column names."),
    "line_not_json": lines('{"serial_number": "SYN0001", "product_key": "9999000000017"}', "SYN0002"),
    "key_repeated": lines('{"product_key": "9999000000017", "product_key": "9999000000024"}'),
    "value_nested": lines('{"product_key": "9999000000017", "tags": ["a", "b"], "model": ["x"]}'),
    "serial_from_number": sheet(
        "(a workbook; the cell of the serial number holds the number 12345678)",
        TUPLE.split(","),
        [12345678, "Contoso", "Contoso Book 14"],
    ),
    "cell_is_date": sheet(
        "(a workbook; the cell of the serial number shows 46174 as a date)",
        TUPLE.split(","),
        [Raw('<c r="A2" s="1"><v>46174</v></c>'), "Contoso", "Contoso Book 14"],
        formats=("yyyy-mm-dd",),
    ),
    "cell_is_error": lines(TUPLE, "#REF!,Contoso,Contoso Book 14"),
    "value_is_boolean": lines(
        '{"serial_number": true, "manufacturer": "Contoso", "model": "Contoso Book 14"}'
    ),
    "number_rounded": sheet(
        "(a workbook; the cell of the serial number holds the number 1.2345678901234567E+17)",
        TUPLE.split(","),
        [Raw('<c r="A2"><v>1.2345678901234567E+17</v></c>'), "Contoso", "Contoso Book 14"],
    ),
    "missing_identity": lines(TUPLE + ",Group Tag", ",,,Kiosk"),
    "incomplete_tuple": lines(TUPLE, "SYN0001,Contoso,"),
    "identity_not_accepted": Said("Given: tuple. The platform takes: hardware_hash."),
    "identity_reduced": lines(f"{TUPLE},PKID", f"{DEVICE},{KEY}"),
    "comma_in_value": Said("It has a comma, which the column 'Device model' can not have."),
    "value_not_in_format": Said("Character 4 is U+00FC; the file has only ASCII."),
    "product_key_is_product_id": lines("PKID", "00330-80000-00000-AA123"),
    "product_key_is_license_key": lines("PKID", "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE"),
    "product_key_scientific": lines("PKID", "9.999E+12"),
    "product_key_placeholder": lines(f"{TUPLE},PKID", f"{DEVICE},0000000000000"),
    "product_key_unusual": lines("PKID", "999900000001"),
    "serial_placeholder": lines(TUPLE, "To be filled by O.E.M.,Contoso,Contoso Book 14"),
    "serial_placeholder_in_hash": File(
        f"Hardware Hash\n{hardware_hash('To be filled by O.E.M.')}\n".encode(), "Hardware Hash\nT0H..."
    ),
    "serial_scientific": lines(TUPLE, "1.23E+12,Contoso,Contoso Book 14"),
    "value_trimmed": lines(TUPLE, "SYN0001 ,Contoso,Contoso Book 14"),
    "value_quoted": lines(TUPLE, "'SYN0001,Contoso,Contoso Book 14"),
    "serial_looks_like_date": lines(TUPLE, "12-May,Contoso,Contoso Book 14"),
    "value_too_long": File(
        f"{TUPLE}\n{'S' * 300},Contoso,Contoso Book 14\n".encode(),
        f"{TUPLE}\nSSSSS...,Contoso,Contoso Book 14",
    ),
    "value_has_control_characters": File(
        f"{TUPLE}\nSYN\u200b001,Contoso,Contoso Book 14\n".encode(),
        f"{TUPLE}\nSYN\\u200b001,Contoso,Contoso Book 14",
    ),
    "group_tag_too_long": File(
        f"{TUPLE},Group Tag\n{DEVICE},{'x' * 129}\n".encode(), f"{TUPLE},Group Tag\n{DEVICE},xxxxx..."
    ),
    "customer_missing": Said("The row names no customer."),
    "customer_not_found": Said("No customer has the tenant, domain or name 'Kontoso'."),
    "customer_ambiguous": Said("2 customers are called 'Contoso'."),
    "customer_contradicts": Said("The row names another customer than the one given for the whole file."),
    "customer_name_unknown": Said("No customer has the tenant, domain or name 'Contoso HQ'."),
    "already_registered_here": Said("Order PO-4711 registered it on 1 June 2026."),
    "registered_for_other_customer": Said("Order PO-4711 registered it for another customer."),
    "duplicate_open_elsewhere": Said("Order PO-4712 has it and is not over."),
    "model_unlike_earlier": Said("Earlier devices with such serial numbers are Contoso Book 13."),
    "duplicate_in_order": lines(TUPLE, DEVICE, DEVICE),
    "duplicate_with_other_tag": lines(f"{TUPLE},Group Tag", f"{DEVICE},Kiosk", f"{DEVICE},Desk"),
    "hash_not_base64": hashed("T0H" + "A" * 900 + "!!!!" + "A" * 900, "T0H...!!!!..."),
    "hash_not_a_hash": hashed("QUJD" * 1000, "QUJDQUJD..."),
    "hash_truncated": hashed(HASH[:400], "T0H... (the first 400 characters)"),
    "hash_checksum_mismatch": hashed(
        HASH[:300] + ("B" if HASH[300] == "A" else "A") + HASH[301:], "T0H... (one character is another one)"
    ),
    "hash_malformed": Said("A record reaches beyond its list."),
    "hash_obsolete": Said("It was made on Windows 10 1703; Microsoft asks for 1709 or later."),
    "hash_lacks_serial": File(f"Hardware Hash\n{hardware_hash('')}\n".encode(), "Hardware Hash\nT0H..."),
    "hash_lacks_manufacturer": File(
        f"Hardware Hash\n{hardware_hash('SYN0001', manufacturer='')}\n".encode(), "Hardware Hash\nT0H..."
    ),
    "hash_repaired": hashed(HASH.rstrip("A") + "AA", "T0H... (a spreadsheet has cut its end)"),
    "hash_from_winpe": Said("It was made in Windows PE."),
    "hash_lacks_tpm": Said("It has no TPM record."),
    "hash_serial_mismatch": hashed(HASH, "T0H...", serial="SYN0002"),
    "hash_manufacturer_mismatch": hashed(
        HASH, "T0H...", serial="Fabrikam", header="Manufacturer,Hardware Hash"
    ),
    "hash_model_mismatch": hashed(HASH, "T0H...", serial="Book 13", header="Model,Hardware Hash"),
    "hash_product_key_mismatch": hashed(
        hardware_hash("SYN0001", product_key=KEY),
        "T0H...",
        serial="9999000000024",
        header="PKID,Hardware Hash",
    ),
}

OUTCOMES = {
    "already_registered": Said("806 ZtdDeviceAlreadyAssigned"),
    "assigned_to_other_tenant": Said("808 ZtdDeviceAssignedToOtherTenant"),
    "device_not_found": Said("812 ZtdDeviceNotFound"),
    "device_not_unique": Said("813 ZtdDeviceIsNotUnique"),
    "upstream_invalid_hash": Said("802 InvalidZtdHardwareHash"),
    "upstream_missing_identity": Said("803 MissingZtdSerialNumberAndProductKey"),
    "upstream_duplicate": Said("ZtdDeviceDuplicated"),
    "upstream_bad_request": Said("801 InvalidZtdRequestBody"),
    "upstream_busy": Said("640 StorageError"),
    "already_entra_registered": Said("814 ZtdDeviceAlreadyAADRegistered"),
    "registered_by_other_tenant": Said("811 ZtdDeviceRegisteredByOtherTenant"),
    "upstream_other": Said("899 ZtdSomethingNew"),
    "refused_at_portal": Said("A person recorded `failed` without a code of Microsoft's."),
    "file_refused_at_portal": Said('`registrar portal undo BATCH --refused "Header not valid"`'),
    "outcome_unknown": Said("The call timed out, and Microsoft's list could not be read to its end."),
    "batch_refused": Said("HTTP 400 2000 The request is not valid."),
    "group_tag_case_conflict": Said("Partner Center has 'Kiosk', the order has 'KIOSK'."),
}

CONNECTIONS = {
    "consent_missing": Said("An order for a customer that is not in Partner Center's list of customers."),
    "consent_revoked": Said("A customer that was in the list and has gone from it."),
    "credential_refused": Said("AADSTS7000215: Invalid client secret provided."),
    "credential_missing": Said("The connection has no refresh token, which creating a group tag needs."),
    "mfa_required": Said("AADSTS50076: multi-factor authentication is needed."),
    "access_denied": Said("HTTP 403 from Partner Center."),
    "upstream_throttled": Said("HTTP 429 with Retry-After: 120."),
    "upstream_unavailable": Said("HTTP 503 from Partner Center, three times."),
}

SERVICE = {
    "rate_limited": Said("3,000 calls a minute with this key; 0 are left for 12 seconds."),
    "not_ready": Said("The database does not answer."),
    "batch_broken": Said("A batch's step ended with an unexpected exception five times."),
    "internal": Said("Something went wrong. Correlation id 018f6d3e-0000-7000-8000-000000000000."),
}

EXAMPLES: dict[str, File | Said] = {**REQUESTS, **FILES, **ROWS, **OUTCOMES, **CONNECTIONS, **SERVICE}
