"""Retrieval across languages, its calibration, and the report."""
