"""Events: what happened, written with the change it tells of; and why work waits."""
