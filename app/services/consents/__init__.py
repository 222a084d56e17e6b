"""Consent: its changes, and their effect on waiting work."""
