"""Microsoft 365 Business: the import in the customer's Microsoft 365 admin centre, by file.

Data only, as for Intune: the file is imported by the customer's administrator.
"""

from app.domain.identity import IdentityKind
from app.platforms.base import Capabilities, Channel, Platform, Profiles

PLATFORM = Platform(
    name="m365_business",
    title="Microsoft 365 Business",
    capabilities=Capabilities(
        max_devices=1000,
        identities=frozenset({IdentityKind.HARDWARE_HASH}),
        profiles=Profiles.LIMITED,
        channel=Channel.FILE,
    ),
    note="The customer's administrator imports the file in the Microsoft 365 admin centre.",
)
