"""Imports: files that are uploaded, checked, previewed and committed as orders."""
