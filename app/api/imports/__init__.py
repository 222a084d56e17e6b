"""Imports and vendor profiles over HTTP."""
