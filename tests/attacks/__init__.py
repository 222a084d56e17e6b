"""Attacks of one partner on an installation, as programs against real processes, with a neighbour measured.

A module of this package is one kind of attack; its `ATTACKS` names them (`tests.attacks.attack.Attack`).
`make attacks` runs each alone and all together, and prints the table of docs/security.md.
"""
