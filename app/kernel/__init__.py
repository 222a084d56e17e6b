"""What every noun needs and no noun is: the transaction, and how a commit wakes workers."""
