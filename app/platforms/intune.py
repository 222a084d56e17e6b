"""Microsoft Intune: the customer's own import, by file.

A partner has no access of its own to a customer's Intune, so an order for it is a file that the
customer's administrator imports. Header and rules are those of Microsoft's "Manually register
devices"; how a list of results is titled is not published, so Graph's words are looked for too.
"""

from app.domain.identity import IdentityKind
from app.platforms.base import Capabilities, Channel, FileFormat, Platform, Profiles, ResultTitles

RESULTS = ResultTitles(
    status=("Import status", "Device import status", "Status", "State", "Result"),
    code=("Error code", "Device error code", "Import error code", "Error"),
    name=(
        "Error name",
        "Device error name",
        "Error message",
        "Error description",
        "Error details",
        "Message",
    ),
)

PLATFORM = Platform(
    name="intune",
    title="Microsoft Intune",
    capabilities=Capabilities(
        max_devices=500,
        identities=frozenset({IdentityKind.HARDWARE_HASH}),
        profiles=Profiles.RECOMMENDED,
        channel=Channel.FILE,
    ),
    note="The customer's administrator imports the file in Intune; the recommended place for profiles.",
    file=FileFormat(
        columns=(
            ("Device Serial Number", "serial_number"),
            ("Windows Product ID", "product_key"),
            ("Hardware Hash", "hardware_hash"),
            ("Group Tag", "group_tag"),
        ),
        serial_from_hash=True,
        read_results=RESULTS.read,
        steps=(
            "Give {file} ({rows}) to an Intune administrator of {customer}, on a way that is "
            "encrypted: it holds hardware hashes. Do not open it in a spreadsheet program, which changes it.",
            "In the Intune admin center of {customer}: Devices > Enrollment > Windows > Windows Autopilot > "
            "Devices > Import. Choose {file}. The group tag {tag} is in the file.",
            "Mark the file as uploaded here. Import no second file before Intune has finished with this one.",
            "After some minutes choose Sync, then Refresh: every device of the file has to appear in the "
            "list. Devices that do not are named in the notification, with Microsoft's code.",
            "Record the outcome here: all registered, or device by device.",
        ),
    ),
)
