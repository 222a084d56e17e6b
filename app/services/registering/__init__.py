"""Registering: the pipeline that sends a batch and records the outcomes of its devices."""
