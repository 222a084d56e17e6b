"""Reads text: its encoding, and its lines and cells within bounds."""
