"""Ids as distinct types, so that one noun's id cannot be passed where another's is wanted.

`PartnerId` says whose data a query may touch. Only authentication, the workers' claims and the
operator's command line mint one; nothing else turns a bare UUID into a `PartnerId`.
"""

from typing import NewType
from uuid import UUID

PartnerId = NewType("PartnerId", UUID)
"""The owner of everything below it; the first argument of every query."""
