"""Devices: their current state, and findings from earlier orders."""
