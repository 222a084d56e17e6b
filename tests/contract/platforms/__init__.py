"""Platforms that only tests have, found as those of the product are: by REGISTRAR_MORE_PLATFORMS."""
