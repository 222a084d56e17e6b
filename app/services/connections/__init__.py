"""Connections: credentials, tokens, troubles, and the reading of customers."""
