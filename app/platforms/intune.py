"""Microsoft Intune: the customer's own import, by file.

A partner has no access of its own to a customer's Intune, so an order for it is a file that the customer's
administrator imports. Header and rules are those of Microsoft's "Manually register devices". The columns of a
list of results are not documented, so Graph's names are accepted too.
"""

from app.domain.identity import IdentityKind
from app.domain.portal_file import FileFormat
from app.platforms.base import Capabilities, Channel, Platform, Profiles, TagUse

PLATFORM = Platform(
    name="intune",
    title="Microsoft Intune",
    capabilities=Capabilities(
        max_devices=500,
        identities=frozenset({IdentityKind.HARDWARE_HASH}),
        profiles=Profiles.RECOMMENDED,
        channel=Channel.FILE,
        group_tags=TagUse.DEVICE,
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
        steps=(
            "Give {file} ({rows}) to an Intune administrator of {customer}, by an encrypted "
            "channel: it holds hardware hashes. Do not open it in a spreadsheet program, which changes it.",
            "In the Intune admin center of {customer}: Devices > Enrollment > Windows > Windows Autopilot > "
            "Devices > Import. Choose {file}, then the button Import below it: nothing is imported before "
            "that. The group tag {tag} is in the file.",
            "Mark the file as uploaded here. Import no other file before Intune has finished this one.",
            "After some minutes choose Sync, then Refresh: every device of the file has to appear in the "
            "list. The notification names failures by Microsoft's code and by rows of the CSV file, counted "
            "from 1 without the header.",
            "Record the outcome here: first what failed, by `file_row` or with the notification's words as "
            "they are. Check that the devices named in the answer are the ones that are missing in Intune's "
            "list. Then record all others as registered.",
        ),
    ),
)
