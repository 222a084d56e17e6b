"""Fault injection with real processes; `python -m tests.chaos --help`, explained in docs/chaos.md."""
