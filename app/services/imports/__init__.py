"""Imports: a file arrives, is judged, and becomes orders."""
