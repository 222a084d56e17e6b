"""HTTP itself: connections, bodies, bounds, turns, and the intake process."""
