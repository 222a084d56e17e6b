"""Microsoft Intune: the customer's own import, by file.

Data only: a partner has no access of its own to a customer's Intune, so an order for it is a file
that the customer's administrator imports.
"""

from app.domain.identity import IdentityKind
from app.platforms.base import Capabilities, Channel, Platform, Profiles

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
)
