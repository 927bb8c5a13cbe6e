"""Fitting calibrations."""
