"""Orders: taken, shown, cancelled and retried."""
