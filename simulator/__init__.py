"""A stand-in for Microsoft: the Entra token endpoint and Partner Center in one separate program.

It imports nothing of the product and keeps everything in memory. See README.md for the contract.
"""
