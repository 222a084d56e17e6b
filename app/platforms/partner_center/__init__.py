"""Microsoft Partner Center: device batches by API, or files at its portal."""

from app.domain.identity import IdentityKind
from app.domain.portal_file import FileFormat
from app.platforms.base import Capabilities, Channel, Platform, Profiles, TagUse
from app.platforms.partner_center.driver import open_abilities

PORTAL_FILE = FileFormat(
    # As in Partner Center's own template. The collector writes other capitals, and it is not documented which
    # of them a case-sensitive parser would accept.
    columns=(
        ("Device serial number", "serial_number"),
        ("Windows product ID", "product_key"),
        ("Hardware hash", "hardware_hash"),
        ("Manufacturer name", "manufacturer"),
        ("Device model", "model"),
    ),
    steps=(
        "Keep {file} ({rows}) as it is: do not open it in a spreadsheet program, which changes it.",
        "In Partner Center, as Admin agent or Sales agent: Customers > {customer} > Devices > Add devices. "
        "Check that it is the right customer.",
        "As the name of the group enter {tag}, to the letter with its capitals: it becomes the group tag "
        "that {customer} sees. If the group is there already, add the devices to it.",
        "Browse to {file}, upload it, and choose Save: nothing is registered before that. Then mark the file "
        "as uploaded here.",
        "When Partner Center has finished, look at every device and not only at the batch: 'finished' may "
        "also mean failed devices.",
        "Record the outcome here: all registered, device by device, or with Partner Center's own list of "
        "results.",
    ),
)

PLATFORM = Platform(
    name="partner_center",
    title="Microsoft Partner Center",
    capabilities=Capabilities(
        max_devices=1000,
        identities=frozenset(IdentityKind),
        profiles=Profiles.RETIRING,
        channel=Channel.API,
        group_tags=TagUse.GROUP,
    ),
    note="Driven by API; consent is the reseller relationship, and the group tag is the batch's name.",
    # Microsoft: API access is not offered to indirect resellers; they use the portal.
    barred_roles=frozenset({"indirect_reseller"}),
    open=open_abilities,
    file=PORTAL_FILE,
)
