"""The error of this package."""


class EmbeddedUnavailable(RuntimeError):
    """PostgreSQL or Valkey cannot run here. The text says what to do about it."""
