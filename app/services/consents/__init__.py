"""Consent: how it changes, and what a change does to waiting work."""
