"""Registering: the pipeline that takes a batch to its outcomes."""
