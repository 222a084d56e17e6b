"""The Retry-After header, as Microsoft and webhook receivers send it."""

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime


def read(value: str | None, *, now: datetime, longest: timedelta) -> timedelta | None:
    """The time that the header asks to wait from `now`: seconds or an HTTP date; None if absent or invalid.

    At most `longest`; zero for a date in the past. A date without a zone is UTC (RFC 9110 5.6.7).
    """
    text = (value or "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?", text):
        # float(), because int() raises on thousands of digits, which are infinity here.
        return timedelta(seconds=min(float(text), longest.total_seconds()))
    try:
        at = parsedate_to_datetime(text)
        wait = (at if at.tzinfo else at.replace(tzinfo=UTC)) - now
    except (ValueError, OverflowError):
        return None
    return min(max(wait, timedelta()), longest)
