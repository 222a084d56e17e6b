"""Registrar registers Windows Autopilot devices on customers' behalf."""

__version__ = "0.1.0"
