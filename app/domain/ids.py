"""Ids as distinct types, so that mypy rejects one noun's id where another's is expected.

`PartnerId` decides whose data a query may touch. Only authentication, workers' claims and the operator's
command line create one; nothing else turns a UUID into a `PartnerId`.
"""

from typing import NewType
from uuid import UUID

PartnerId = NewType("PartnerId", UUID)
"""The owner of everything below it; the first argument of every query."""
