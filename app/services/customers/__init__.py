"""Customers: created, listed and changed."""
