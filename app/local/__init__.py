"""Registrar on one machine: databases from wheels, `registrar up`, the sandbox, the demonstration.

The command line alone imports this package, and only when it is needed. The production image leaves it out.
"""
