"""One example for every code of the catalogue: see `tests.messages`."""

from simulator.samples import hardware_hash
from tests.messages import HASH, TUPLE, File, Said, gzipped, hashed, lines, sheet
from tests.support.workbooks import Raw, archive, workbook

Examples = dict[str, File | Said]

DEVICE = "SYN0001,Contoso,Contoso Book 14"
KEY = "9999000000017"

REQUESTS: Examples = {
    "not_json": Said("The body is not JSON: unexpected character at byte 17."),
    "validation_failed": Said("devices.0.serial_number: Input should be a valid string"),
    "unsupported_media_type": Said("Content-Type is missing; send application/json."),
    "body_too_large": Said("The body of this call has at most 65,536 bytes."),
    "body_too_complex": Said(
        "The body of this call has at most 20,002 objects and lists, 100,000 values, and 200 levels."
    ),
    "large_bodies_waiting": Said(
        "At most 4 bodies over 512 kB are read at a time, 2 of one partner. "
        "This one waited 30 s for its turn."
    ),
    "intake_interrupted": Said("The intake process was killed while it stored an order of 10,000 devices."),
    "too_many_devices": Said("The order has 10,001 devices; at most 10,000 are allowed."),
    "unauthenticated": Said("The API key has expired."),
    "scope_missing": Said("This needs the scope orders:write; the key has orders:read."),
    "key_rotated_already": Said("This key was replaced by the key 0a1b2c3d, which has been used or revoked."),
    "not_found": Said("There is no order 018f6d3e-0000-7000-8000-000000000000."),
    "unknown_customer": Said("There is no customer 018f6d3e-0000-7000-8000-000000000000."),
    "unknown_connection": Said("There is no connection 018f6d3e-0000-7000-8000-000000000000."),
    "unknown_platform": Said("There is no platform intune_v2."),
    "platform_not_automated": Said("The platform store_for_business is data only."),
    "platform_cannot_tell": Said("`consent:recheck` where the platform does not show who has consented."),
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
    "quota_exceeded": Said(
        "The quota customers is used up: 100,000 of 100,000 customers. Remove customers that are not "
        "used. The operator can raise the quota."
    ),
    "order_rejected": Said("2 of 100 rows are invalid: see `errors`."),
    "idempotency_key_reused": Said("The key PO-4711 was used with another body."),
    "idempotency_key_invalid": Said("The key has 300 characters; at most 255 are allowed."),
    "idempotency_in_progress": Said("The first request with the key PO-4711 is still running."),
    "idempotency_answer_lost": Said(
        "The stored answer does not open: it was sealed with a secret key that REGISTRAR_SECRET_KEYS no "
        "longer has."
    ),
    "idempotency_secret_gone": Said("A webhook endpoint made yesterday; its answer was lost."),
    "removal_blocked": Said("Not finished: 2 order(s) or import(s) of the customer."),
    "removal_not_confirmed": Said("The customer has 12 orders."),
    "being_removed": Said("An order for a customer that `registrar customer remove` is removing."),
    "invalid_state": Said("The order is over: there is nothing left to cancel."),
    "invalid_page_token": Said("The token belongs to another list."),
    "invalid_parameter": Said("page_size: Input should be less than or equal to 1000"),
    "url_refused": Said("hooks.example.com resolves to an address of a private network."),
    "upload_broken_off": Said("The connection ended after 1,048,576 bytes."),
    "import_too_large": Said("The file has more than 4,000,000,000 bytes."),
    "import_rejected": Said("3 of 1,000 rows are invalid."),
    "import_has_no_valid_row": Said("All 20 rows are invalid."),
    "unknown_profile": Said("There is no vendor profile supplier-7."),
    "authorization_repeated": Said("A call with two `Authorization` headers."),
    "too_many_wrong_keys": Said("31 calls with a wrong key from 203.0.113.7 in a minute."),
    "malformed_http": Said("A TLS handshake to the port of the API."),
    "head_too_large": Said("A request with a cookie of 100 kB."),
    "head_too_slow": Said("Half a header, and nothing more for 10 seconds."),
    "body_too_slow": Said("An order of 40 MB that arrives with 100 bytes a second."),
    "too_many_connections": Said("The 201st connection from 203.0.113.7."),
    "metrics_not_open": Said("`GET /metrics` from 203.0.113.7, or through a proxy."),
}

FILES: Examples = {
    "import_given_up": Said("It was begun 5 times and never ended."),
    "empty_file": File(b"", "(no byte)"),
    "too_many_rows": Said("A file with 1,000,001 rows."),
    "file_too_large": Said("A file that unpacks to more than 4 GB."),
    "workbook_too_large": Said("A workbook whose texts take more than 1 GB when they are unpacked."),
    "compression_bomb": Said("A workbook of 100 kB that unpacks to 2 GB."),
    "gzip_damaged": File(gzipped(b"x" * 9000)[:-9], "(a gzip file without its end)"),
    "workbook_damaged": File(workbook({"A": [["x"]]})[:-40], "(an .xlsx file without its end)"),
    "xml_damaged": File(b"<Key><HardwareHash>T0H</Key>", "<Key><HardwareHash>T0H...</Key>"),
    "xml_declares": File(
        b'<!DOCTYPE Key [<!ENTITY x "y">]><Key>&x;</Key>', '<!DOCTYPE Key [<!ENTITY x "y">]><Key>&x;</Key>'
    ),
    "columns_unknown": lines("Colour,Weight", "red,7"),
    "file_is_unsupported_workbook": File(
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "(an .xls file of Excel 97 to 2003)"
    ),
    "file_is_web_page": lines("<!DOCTYPE html>", "<html><body>Sign in to continue</body></html>"),
    "file_is_xml": lines('<?xml version="1.0"?>', "<devices><device/></devices>"),
    "file_is_json": lines('[{"serial_number": "SYN0001"}]'),
    "file_is_rich_text": lines(r"{\rtf1\ansi SYN0001}"),
    "file_is_pdf": File(b"%PDF-1.7\n", "(a PDF)"),
    "file_is_picture": File(b"\x89PNG\r\n\x1a\n" + bytes(40), "(a PNG)"),
    "file_is_database": File(b"SQLite format 3\x00" + bytes(80), "(an SQLite file)"),
    "file_is_program": File(b"MZ\x90\x00" + bytes(80), "(an .exe file)"),
    "file_is_nested_gzip": File(gzipped(gzipped(f"{TUPLE}\n{DEVICE}\n".encode())), "(a .csv.gz.gz file)"),
    "file_is_archive": File(b"7z\xbc\xaf\x27\x1c" + bytes(60), "(a .7z file)"),
    "file_is_cabinet": File(b"MSCF" + bytes(60), "(a .cab file)"),
    "file_is_not_text": File(bytes(range(256)) * 4, "(bytes that are no text)"),
    "file_without_rows": Said("A file with a header and nothing below it, sent to `registrar submit`."),
    "column_unknown": lines(f"{TUPLE},Shelf", f"{DEVICE},7"),
    "column_repeated": lines(f"{TUPLE},Serial No", f"{DEVICE},SYN0001"),
    "column_not_sent": lines(f"{TUPLE},PO Number", f"{DEVICE},4711"),
    "column_by_content": File(
        f"Serial Number,Blob\nSYN0001,{HASH}\n".encode(), "Serial Number,Blob\nSYN0001,T0H..."
    ),
    "header_missing": File(f"SYN0001,,{HASH}\n".encode(), "SYN0001,,T0H..."),
    "corporate_identifier_layout": lines(
        "Microsoft,Surface Laptop 5,012345678901", "HP,HP ProBook 450 G5,5CD1000"
    ),
    "lines_above_table": lines("Delivery of 1 June", "", TUPLE, DEVICE),
    "header_repeated": lines(
        TUPLE, DEVICE, "Manufacturer,Model,Serial Number", "Contoso,Contoso Book 14,SYN0002"
    ),
    "profile_column_missing": Said("The profile names the column SerialNo, which the file does not have."),
    "sheets_unused": File(
        workbook({"Devices": [TUPLE.split(","), DEVICE.split(",")], "Prices": [["Total"], [7]]}),
        "(a workbook with the sheets Devices and Prices)",
    ),
    "sheet_unknown": Said("There is no sheet 'March'. The workbook has: Devices, Prices."),
    "file_is_html_table": lines(
        "<html><table><tr><td>Serial Number</td></tr><tr><td>SYN0001</td></tr></table></html>"
    ),
    "file_is_xml_spreadsheet": lines(
        '<?xml version="1.0"?>',
        '<Workbook xmlns="urn:schemas-microsoft-com:office:spreadsheet"><Worksheet/></Workbook>',
    ),
    "file_is_numbers_document": File(
        archive({"Index/Document.iwa": "x", "Metadata/Properties.plist": "x"}), "(a .numbers file)"
    ),
    "file_is_opendocument": File(
        archive({"mimetype": "application/vnd.oasis.opendocument.spreadsheet", "content.xml": "<x/>"}),
        "(an .ods file)",
    ),
    "encoding_guessed": File(
        f"{TUPLE},Group Tag\n{DEVICE},Büro Köln\n".encode("cp1252"),
        f"{TUPLE},Group Tag\n{DEVICE},B\\xfcro K\\xf6ln",
    ),
    "devices_side_by_side": lines(
        f"{TUPLE},{TUPLE}",
        f"{DEVICE},SYN0002,Contoso,Contoso Book 14",
        f"SYN0003,Contoso,Contoso Book 14,{DEVICE}4",
    ),
    "rows_in_quotes": lines(f'"{TUPLE}"', f'"{DEVICE}"', '"SYN0002,Contoso,Contoso Book 14"'),
    "names_beside_values": lines(
        "Serial Number : SYN0001",
        "Manufacturer  : Contoso",
        "Model         : Contoso Book 14",
        "",
        "Serial Number : SYN0002",
        "Manufacturer  : Contoso",
        "Model         : Contoso Book 14",
    ),
    "sheets_with_devices": File(
        workbook(
            {"March": [TUPLE.split(","), DEVICE.split(",")], "April": [TUPLE.split(","), DEVICE.split(",")]}
        ),
        "(a workbook with devices on the sheets March and April)",
    ),
    "sheet_hidden": File(
        workbook(
            {"Old": [TUPLE.split(","), DEVICE.split(",")], "Now": [["Empty"]]}, states={"Old": "hidden"}
        ),
        "(a workbook whose only sheet with devices is hidden)",
    ),
    "rows_hidden": Said("3 rows are hidden, by a filter for instance; they are not read."),
    "columns_hidden": Said("The column 'Group Tag' is hidden; it is not read."),
    "columns_hidden_unknown": Said("2 columns are hidden, and none of them is known."),
    "omitted_as_asked": Said("`registrar submit devices.xlsx --skip-hidden`"),
    "cells_split": File(
        workbook({"A": [[TUPLE.replace(",", ";")], [DEVICE.replace(",", ";")], ["SYN0002;Contoso;Book 13"]]}),
        "(a workbook with everything in column A)\n"
        + TUPLE.replace(",", ";")
        + "\n"
        + DEVICE.replace(",", ";"),
    ),
}

ROWS: Examples = {
    "row_short": lines(TUPLE + ",Group Tag,Shelf", DEVICE),
    "row_long": File(
        f"Serial Number,Hardware Hash\nSYN0001,{HASH},x\n".encode(),
        "Serial Number,Hardware Hash\nSYN0001,T0H...,x",
    ),
    "row_torn": lines(TUPLE, DEVICE, "SYN0002,Con,toso,Contoso Book 14"),
    "value_joined": lines(
        TUPLE, DEVICE, "SYN0002,Contoso, Ltd.,Contoso Book 14", '"SYN0003","Contoso, Ltd.","Contoso Book 14"'
    ),
    "hash_joined": File(
        f"Serial Number,Hardware Hash\nSYN0001,{HASH[:76]}\n{HASH[76:]}\n".encode(),
        "Serial Number,Hardware Hash\nSYN0001,T0H...\n...",
    ),
    "separator_differs": lines(TUPLE, DEVICE, "SYN0002;Contoso;Contoso Book 14"),
    "identity_contradicts": lines(f"{TUPLE},Serial Number", f"{DEVICE},SYN0002"),
    "columns_differ": lines(
        "Serial Number,Manufacturer,System Product Name,Model Name", "SYN0001,Contoso,CB14,Contoso Book 14"
    ),
    "letters_guessed": File(
        f"{TUPLE},Group Tag\n{DEVICE},Büro Köln\n".encode("cp1252"),
        f"{TUPLE},Group Tag\n{DEVICE},B\\xfcro K\\xf6ln",
    ),
    "quote_inside": lines(TUPLE, 'SYN0001,Contoso,"Contoso Book 14" Pro"'),
    "quote_misplaced": Said("Text follows the mark that closes the value."),
    "formula_without_result": Said("The cell holds a formula, and the file not what it gives."),
    "product_key_cleaned": lines("PKID", "PKID: 9999 0000 00017"),
    "product_key_impossible": lines("PKID", "Key: see label 7"),
    "value_placeholder": lines(f"{TUPLE},PKID", f"{DEVICE},N/A"),
    "value_not_sent": lines(f"{TUPLE},PKID", f"{DEVICE},00330-80000-00000-AA123"),
    "value_unlikely": lines(TUPLE, "S/N: SYN0001,Contoso,Contoso Book 14"),
    "value_torn": lines(TUPLE, "SYN0001,Contoso,Ltd."),
    "value_is_formula": lines(TUPLE, "=A7,Contoso,Contoso Book 14"),
    "value_is_secret": Said("It holds a 25-character product key or a piece of a hardware hash."),
    "secret_left_out": lines(f"{TUPLE},PO Number", f"{DEVICE},AAAAA-BBBBB-CCCCC-DDDDD-E1E1E"),
    "several_serials": lines(TUPLE, "SYN0001/SYN0002,Contoso,Contoso Book 14"),
    "serial_not_ascii": lines(TUPLE, "ＳＹＮ０００１,Contoso,Contoso Book 14"),
    "manufacturer_placeholder": lines(TUPLE, "SYN0001,System manufacturer,Contoso Book 14"),
    "model_placeholder": lines(TUPLE, "SYN0001,Contoso,System Product Name"),
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
    "comma_in_value": Said("It has a comma, which the column 'Device model' cannot have."),
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

OUTCOMES: Examples = {
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
    "batch_split": Said("HTTP 413 for a call with 1,000 devices."),
    "processing_at_microsoft": Said("Accepted; Microsoft's job is not finished."),
    "outcome_being_looked_up": Said("The call ended without an answer."),
    "group_tag_case_conflict": Said("Partner Center has 'Kiosk', the order has 'KIOSK'."),
}

CONNECTIONS: Examples = {
    "consent_missing": Said("An order for a customer that is not in Partner Center's list of customers."),
    "consent_revoked": Said("A customer that was in the list and has gone from it."),
    "credential_refused": Said("AADSTS7000215: Invalid client secret provided."),
    "credential_missing": Said("The connection has no refresh token, which creating a group tag needs."),
    "client_secret_expired": Said("AADSTS7000222: The provided client secret keys are expired."),
    "app_not_found": Said("AADSTS700016: Application was not found in the directory."),
    "tenant_not_found": Said("AADSTS90002: Tenant not found."),
    "app_consent_missing": Said("AADSTS65001: The user or administrator has not consented."),
    "conditional_access_blocked": Said(
        "AADSTS53003: Access has been blocked by Conditional Access policies."
    ),
    "sign_in_frequency": Said("AADSTS70043: The refresh token has expired due to sign-in frequency checks."),
    "refresh_token_expired": Said("AADSTS700082: The refresh token has expired due to inactivity."),
    "sign_in_revoked": Said("AADSTS50173: The provided grant has been revoked; the password was changed."),
    "user_disabled": Said("AADSTS50057: The user account is disabled."),
    "upstream_not_understood": Said("HTTP 200 a web page instead of JSON."),
    "customers_not_read": Said("HTTP 403 for the list of customers."),
    "call_rate_used_up": Said("The next call may be made in 12 seconds."),
    "group_tag_being_created": Said("Batch 018f6d3e-0000-7000-8000-000000000000 creates it."),
    "mfa_required": Said("AADSTS50076: multi-factor authentication is needed."),
    "access_denied": Said("HTTP 403 from Partner Center."),
    "upstream_throttled": Said("HTTP 429 with Retry-After: 120."),
    "upstream_unavailable": Said("HTTP 503 from Partner Center, three times."),
}

SERVICE: Examples = {
    "rate_limited": Said("3,000 calls a minute with this key; 0 are left for 12 seconds."),
    "too_many_calls_at_once": Said("8 of your calls are being worked on, and 64 are waiting."),
    "turn_did_not_come": Said("The call waited 30 seconds for its turn. Nothing has been done."),
    "read_took_too_long": Said("Reading took longer than 5 seconds and was stopped."),
    "not_ready": Said("The database does not answer."),
    "waiting_for_turn": Said("Another batch of the customer goes first."),
    "portal_upload_due": Said("Order PO-4711: the file Kiosk - PO-4711.csv waits to be uploaded."),
    "portal_outcome_due": Said("Order PO-4711: the file was uploaded, and no outcome is recorded."),
    "no_worker_alive": Said("No worker has had a heartbeat for a minute."),
    "redis_unavailable": Said("Redis has not answered since 10:15 UTC."),
    "batch_broken": Said("A batch's step ended with an unexpected exception five times."),
    "internal": Said("Something went wrong. Correlation id 018f6d3e-0000-7000-8000-000000000000."),
}

COMMANDS: Examples = {
    "command_failed": Said("`registrar submit devices.csv`: there is no file devices.csv."),
    "command_refused": Said("`registrar submit devices.csv --reject-invalid` with an invalid device."),
    "command_interrupted": Said("Ctrl-C while a command runs."),
    "command_misused": Said("`registrar order` without an order."),
    "not_confirmed": Said("`registrar cancel PO-4711`, answered with `n`."),
    "api_unreachable": Said("The API at http://127.0.0.1:8000 does not answer."),
    "api_not_recognised": Said("What answers at http://127.0.0.1:8000 is not Registrar's API (status 200)."),
    "api_url_unusable": Said("REGISTRAR_API_URL=127.0.0.1:8000"),
    "api_key_missing": Said("A command that asks the API, without REGISTRAR_API_KEY and without a profile."),
    "api_key_unusable": Said("REGISTRAR_API_KEY with a blank in it."),
    "name_not_found": Said("There is no order PO-4712."),
    "name_ambiguous": Said("2 customers are called Contoso."),
    "profile_unusable": Said("profiles.toml can be read by others: its mode is 0644."),
    "file_not_written": Said("result.csv cannot be written: No space left on device."),
}

EXAMPLES: Examples = {
    **REQUESTS,
    **FILES,
    **ROWS,
    **OUTCOMES,
    **CONNECTIONS,
    **SERVICE,
    **COMMANDS,
}
