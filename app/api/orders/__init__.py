"""Orders, their registrations and batches, over HTTP."""
