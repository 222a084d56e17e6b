"""Platforms that only tests have. They are discovered like the product's, by REGISTRAR_MORE_PLATFORMS."""
