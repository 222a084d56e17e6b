"""Orders: accepted, listed, cancelled and retried."""
