"""Access to Registrar: partners, API keys, quotas and Idempotency-Keys."""
