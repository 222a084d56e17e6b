"""Reads delimited text: CSV in its dialects, and the lists that PowerShell prints."""
