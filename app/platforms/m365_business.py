"""Microsoft 365 Business: the import in the customer's Microsoft 365 admin centre, by file.

The customer's administrator imports the file, as for Intune. It has three columns and none for the group tag.
"""

from app.domain.identity import IdentityKind
from app.domain.portal_file import FileFormat
from app.platforms.base import Capabilities, Channel, Platform, Profiles, TagUse

PLATFORM = Platform(
    name="m365_business",
    title="Microsoft 365 Business",
    capabilities=Capabilities(
        max_devices=1000,
        identities=frozenset({IdentityKind.HARDWARE_HASH}),
        profiles=Profiles.LIMITED,
        channel=Channel.FILE,
        group_tags=TagUse.NONE,
    ),
    note="The customer's administrator imports the file in the Microsoft 365 admin centre.",
    file=FileFormat(
        columns=(
            ("Device Serial Number", "serial_number"),
            ("Windows Product ID", "product_key"),
            ("Hardware Hash", "hardware_hash"),
        ),
        serial_from_hash=True,
        steps=(
            "Give {file} ({rows}) to an administrator of {customer}, by an encrypted channel: it holds "
            "hardware hashes. Do not open it in a spreadsheet program, which changes it.",
            "In the Microsoft 365 admin center of {customer}: Devices > Autopilot > Devices > Add devices. "
            "Choose {file}, and where a name for the list is asked for, enter {tag} to the letter. Choose "
            "Save: nothing is registered before that.",
            "Mark the file as uploaded here.",
            "Refresh the list of devices: every device of the file has to be in it. This portal's file has "
            "no group tag: if it is needed in Intune, set it there.",
            "Record the outcome here: all registered, or device by device.",
        ),
    ),
)
