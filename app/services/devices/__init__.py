"""Devices: what is believed now, and what earlier orders say of a device."""
