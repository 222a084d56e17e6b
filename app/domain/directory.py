"""Finds the customer that a row names: by Entra tenant id, our own id, domain or exact name.

Never by similarity: a device registered for the wrong customer is hard to get back. If not exactly one
customer matches, the row gets a finding, and a person decides.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from app.domain.catalogue import Finding
from app.domain.masking import quoted
from app.domain.placeholders import means_empty


@dataclass(frozen=True, slots=True)
class Entry:
    id: UUID
    entra_tenant_id: UUID
    domain: str | None
    name: str


class Directory:
    """A partner's customers, indexed for one lookup per row of a file."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._by_id: defaultdict[UUID, set[UUID]] = defaultdict(set)
        self._by_domain: defaultdict[str, set[UUID]] = defaultdict(set)
        self._by_name: defaultdict[str, set[UUID]] = defaultdict(set)
        for entry in entries:
            self._by_id[entry.entra_tenant_id].add(entry.id)
            self._by_id[entry.id].add(entry.id)
            if entry.domain:
                self._by_domain[_folded(entry.domain)].add(entry.id)
            self._by_name[_folded(entry.name)].add(entry.id)

    def find(self, text: str) -> UUID | Finding:
        """The one customer with this tenant id, id, domain or name; otherwise a finding."""
        wanted = _folded(text)
        try:
            found = self._by_id.get(UUID(wanted), set())
        except ValueError:
            found = self._by_domain.get(wanted) or self._by_name.get(wanted) or set()
        if len(found) == 1:
            return next(iter(found))
        named = quoted(text.strip())
        if found:
            detail = f"{len(found)} customers are called {named}."
            return Finding("customer_ambiguous", "customer", detail)
        return Finding(
            "customer_not_found", "customer", f"No customer has the tenant, domain or name {named}."
        )

    def of_row(self, text: str | None, given: UUID | None) -> tuple[UUID | None, Finding | None]:
        """The customer of a row, or a finding. `given`: the customer that was named for the whole file."""
        if text is None or not text.strip():
            if given is None:
                return None, Finding("customer_missing", "customer", "The row names no customer.")
            return given, None
        found = self.find(text)
        if isinstance(found, Finding) and means_empty(text):
            return self.of_row(None, given)
        if given is None:
            return (None, found) if isinstance(found, Finding) else (found, None)
        if isinstance(found, Finding):
            # The file may use a name for the customer that Registrar does not know.
            return given, Finding("customer_name_unknown", "customer", found.detail)
        if found != given:
            detail = "The row names another customer than the one given for the whole file."
            return given, Finding("customer_contradicts", "customer", detail)
        return given, None


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()
