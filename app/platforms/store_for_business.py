"""Microsoft Store for Business: retired by Microsoft, kept so that old records can name it."""

from app.domain.identity import IdentityKind
from app.platforms.base import Capabilities, Channel, Platform, Profiles, TagUse

PLATFORM = Platform(
    name="store_for_business",
    title="Microsoft Store for Business",
    capabilities=Capabilities(
        max_devices=1000,
        identities=frozenset({IdentityKind.HARDWARE_HASH}),
        profiles=Profiles.RETIRING,
        channel=Channel.FILE,
        group_tags=TagUse.GROUP,
        retired=True,
    ),
    note="Retired by Microsoft: it takes no new devices.",
)
