"""Registrar on one machine: databases from wheels, `registrar up`, the sandbox, the demonstration.

Only the command line imports this package, and only when needed. The production image leaves it out.
"""
