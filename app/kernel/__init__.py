"""The kernel that every noun needs: settings, secrets, transactions, wake-ups, budgets, outbound calls."""
