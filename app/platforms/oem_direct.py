"""The OEM Direct API: for hardware makers whom Microsoft has admitted to it.

Data only: its contract is not public, so an order for it is a file for the maker's own submission.
"""

from app.domain.identity import IdentityKind
from app.platforms.base import Capabilities, Channel, Platform, Profiles, TagUse

PLATFORM = Platform(
    name="oem_direct",
    title="OEM Direct API",
    capabilities=Capabilities(
        max_devices=1000,
        identities=frozenset({IdentityKind.TUPLE, IdentityKind.PRODUCT_KEY}),
        profiles=Profiles.NONE,
        channel=Channel.FILE,
        group_tags=TagUse.NONE,
    ),
    note="For OEMs admitted by Microsoft, through their own submission; consent is the OEM authorisation.",
)
