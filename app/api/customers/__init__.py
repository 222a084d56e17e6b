"""Customers and consent over HTTP."""
