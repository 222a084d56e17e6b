"""Which devices a file has had already, by what identifies them."""

from app.domain.catalogue import Finding


class Seen:
    def __init__(self) -> None:
        self._rows: dict[int, tuple[int, int]] = {}

    def add(self, number: int, keys: tuple[str, ...], tag: str | None) -> Finding | None:
        """None for a device that is new; otherwise what is wrong with this second row."""
        own = hash((tag or "").casefold())
        for key in keys:
            if (first := self._rows.get(hash(key))) is not None:
                return _twin(first, own)
        for key in keys:
            self._rows[hash(key)] = (number, own)
        return None


def _twin(first: tuple[int, int], own: int) -> Finding:
    row, tag = first
    if tag != own:
        detail = f"Row {row} is the same device and asks for another group tag."
        return Finding("duplicate_other_group_tag", "group_tag", detail)
    return Finding("duplicate_in_order", "", f"The same device as row {row}.")
