"""The kernel that every noun needs: the transaction, and how a commit wakes workers."""
