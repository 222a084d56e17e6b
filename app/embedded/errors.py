"""The one error of this package.

It stands alone because every other module here raises it, and because whoever starts the servers catches it
without caring which of them could not run, or why.
"""


class EmbeddedUnavailable(RuntimeError):
    """PostgreSQL or Valkey cannot run here; the text says what a person can do about it."""


class NoInstallation(EmbeddedUnavailable):
    """Nothing has been made here yet, and only what was asked to make it may do so."""
