"""Connections: credentials, tokens, troubles, and reading the list of customers."""
