"""The Autopilot service's error names and numbers for a device, and what they mean.

Partner Center's API and Microsoft's portals use them, but not consistently (806 has been seen with the name
of 808). So the name decides first, the number second.
"""

from app.domain.registration import Meaning, RegistrationState

_S = RegistrationState

NAMES: dict[str, Meaning] = {
    "ztddevicealreadyassigned": Meaning(_S.ALREADY_REGISTERED, "already_registered"),
    "ztddeviceassignedtoothertenant": Meaning(_S.CONFLICT, "assigned_to_other_tenant"),
    "ztddeviceassignedtoanothertenant": Meaning(_S.CONFLICT, "assigned_to_other_tenant"),
    "ztddeviceregisteredbyothertenant": Meaning(_S.CONFLICT, "registered_by_other_tenant"),
    "invalidztdrequestbody": Meaning(_S.FAILED, "upstream_bad_request"),
    "invalidztdhardwarehash": Meaning(_S.FAILED, "upstream_invalid_hash"),
    "hashnot4k": Meaning(_S.FAILED, "upstream_invalid_hash"),
    "missingztdserialnumberandproductkey": Meaning(_S.FAILED, "upstream_missing_identity"),
    "ztddevicenotfound": Meaning(_S.FAILED, "device_not_found"),
    "ztddeviceisnotunique": Meaning(_S.FAILED, "device_not_unique"),
    "ztddevicealreadyaadregistered": Meaning(_S.FAILED, "already_entra_registered"),
    "ztddeviceduplicated": Meaning(_S.FAILED, "upstream_duplicate"),
    "storageerror": Meaning(_S.FAILED, "upstream_busy"),
}

NUMBERS: dict[str, str] = {
    "640": "storageerror",
    "801": "invalidztdrequestbody",
    "802": "invalidztdhardwarehash",
    "803": "missingztdserialnumberandproductkey",
    "806": "ztddevicealreadyassigned",
    "808": "ztddeviceassignedtoothertenant",
    "811": "ztddeviceregisteredbyothertenant",
    "812": "ztddevicenotfound",
    "813": "ztddeviceisnotunique",
    "814": "ztddevicealreadyaadregistered",
}


def meaning(code: str | None, name: str | None) -> Meaning | None:
    """The meaning of an error; None if neither table has it."""
    by_name = NAMES.get((name or "").strip().casefold())
    return by_name or NAMES.get(NUMBERS.get((code or "").strip(), ""))
