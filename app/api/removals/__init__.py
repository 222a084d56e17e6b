"""Removals over HTTP."""
